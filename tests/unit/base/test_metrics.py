"""What Prometheus reads, read as Prometheus reads it."""

from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from kilonova.base.metrics import Counter, Gauge, Histogram, exposition, new_registry


def test_types_help_labels_and_buckets() -> None:
    registry = new_registry()
    Counter("boots", 'Boots with "quotes", \\ and\na line', ("host",), registry=registry).labels('a"b\\c\nd').inc(2)
    Gauge("free", "Room", registry=registry).set(-1.5)
    seconds = Histogram("took_seconds", "Time", buckets=(0.1, 1), registry=registry)
    for value in (0.05, 0.5, 5):
        seconds.observe(value)
    text = exposition(registry).decode()
    found = {family.name: family for family in text_string_to_metric_families(text)}
    assert found["boots"].type == "counter" and found["free"].type == "gauge"
    assert found["boots"].documentation == 'Boots with "quotes", \\ and\na line'
    [boots] = [sample for sample in found["boots"].samples if sample.name == "boots_total"]
    assert boots.labels == {"host": 'a"b\\c\nd'} and boots.value == 2
    buckets = {s.labels["le"]: s.value for s in found["took_seconds"].samples if s.name == "took_seconds_bucket"}
    assert found["took_seconds"].type == "histogram" and buckets == {"0.1": 1, "1.0": 2, "+Inf": 3}
    assert text.endswith("\n")


def test_the_process_itself() -> None:
    values = {
        family.name: family.samples[0].value
        for family in text_string_to_metric_families(exposition(new_registry()).decode())
    }
    assert values["process_resident_memory_bytes"] > 1024**2
    assert abs(values["process_open_fds"] - len(list(Path("/proc/self/fd").iterdir()))) <= 3
    assert values["process_cpu_seconds"] > 0
