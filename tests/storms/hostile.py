from tests.storms.kit import Storm

STORMS: list[Storm] = []
