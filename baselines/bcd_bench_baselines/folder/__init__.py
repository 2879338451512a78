"""The method `folder`: existing videos, matched by the pairs' ids."""
