"""Our QoS profile in Cyclone's policies, and back: as rmw_cyclonedds_cpp maps them."""

from __future__ import annotations

from cyclonedds.qos import Policy, Qos
from cyclonedds.util import duration

from kizzasi_edge.ros2.names import encode_hash
from kizzasi_edge.ros2.qos import QosProfile

INFINITE: int = duration(infinite=True)
UNLIMITED = -1


def endpoint_qos(profile: QosProfile, type_hash: str) -> Qos:
    """The QoS of a reader or a writer. A writer that would have to wait drops instead: the loop never blocks."""
    history = Policy.History.KeepAll if profile.history == "keep_all" else Policy.History.KeepLast(profile.depth)
    liveliness = Policy.Liveliness.ManualByTopic if profile.liveliness == "manual_by_topic" else None
    policies = [
        Policy.Reliability.Reliable(0) if profile.reliability == "reliable" else Policy.Reliability.BestEffort,
        history,
        (liveliness or Policy.Liveliness.Automatic)(_ns(profile.lease_s)),
        Policy.DataRepresentation(use_cdrv0_representation=True, use_xcdrv2_representation=False),
        Policy.WriterDataLifecycle(autodispose=False),
        Policy.Userdata(data=encode_hash(type_hash)),
    ]
    if profile.durability == "transient_local":
        policies.append(Policy.Durability.TransientLocal)
        policies.append(
            Policy.DurabilityService(
                cleanup_delay=0,
                history=history,
                max_samples=UNLIMITED,
                max_instances=UNLIMITED,
                max_samples_per_instance=UNLIMITED,
            )
        )
    else:
        policies.append(Policy.Durability.Volatile)
    if profile.deadline_s is not None:
        policies.append(Policy.Deadline(_ns(profile.deadline_s)))
    if profile.lifespan_s is not None:
        policies.append(Policy.Lifespan(_ns(profile.lifespan_s)))
    return Qos(*policies)


def profile_of(qos: Qos) -> QosProfile:
    """What an endpoint on the graph says of itself. A history and depth are not told to others: ours are defaults."""
    found = {policy.__scope__: policy for policy in qos}
    liveliness = found.get("Liveliness", Policy.Liveliness.Automatic(INFINITE))
    deadline = found.get("Deadline")
    lifespan = found.get("Lifespan")
    return QosProfile(
        reliability="reliable" if isinstance(found.get("Reliability"), Policy.Reliability.Reliable) else "best_effort",
        durability="volatile" if found.get("Durability") in (None, Policy.Durability.Volatile) else "transient_local",
        deadline_s=None if deadline is None else _seconds(deadline.deadline),
        lifespan_s=None if lifespan is None else _seconds(lifespan.lifespan),
        liveliness="manual_by_topic" if isinstance(liveliness, Policy.Liveliness.ManualByTopic) else "automatic",
        lease_s=_seconds(liveliness.lease_duration),
    )


def _ns(seconds: float | None) -> int:
    return INFINITE if seconds is None else round(seconds * 1e9)


def _seconds(ns: int) -> float | None:
    return None if ns >= INFINITE else ns * 1e-9
