"""How what is to be sent is parted among associations."""

from node.services.link import MAX_CONTEXTS, Pair, batches

EXPLICIT, IMPLICIT, JPEG = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2", "1.2.840.10008.1.2.4.50"


def same(pair: Pair) -> Pair:
    return pair


def test_no_association_has_more_pairs_than_it_has_contexts() -> None:
    items = [(f"1.2.{number % 300}", (EXPLICIT, JPEG)[number % 2]) for number in range(1200)]
    found = batches(items, same, (EXPLICIT, IMPLICIT))
    assert sorted(item for _, batch in found for item in batch) == sorted(items)
    for pairs, batch in found:
        assert len(pairs) == len(set(pairs)) <= MAX_CONTEXTS
        for class_uid, syntax in batch:
            assert {(class_uid, syntax), (class_uid, EXPLICIT), (class_uid, IMPLICIT)} <= set(pairs)
    assert len(found) == 6  # 150 classes of two pairs and 150 of three


def test_a_class_is_not_torn_and_keeps_its_order() -> None:
    items = [("1.2", JPEG), ("1.3", JPEG), ("1.2", EXPLICIT), ("1.3", EXPLICIT), ("1.2", JPEG)]
    ((pairs, batch),) = batches(items, same)
    assert pairs == [("1.2", JPEG), ("1.2", EXPLICIT), ("1.3", JPEG), ("1.3", EXPLICIT)]
    assert [item for item in batch if item[0] == "1.2"] == [item for item in items if item[0] == "1.2"]


def test_nothing_needs_no_association() -> None:
    assert batches([], same, (EXPLICIT,)) == []
