"""The method `folder`: videos that were made elsewhere, found by the pairs' ids."""
