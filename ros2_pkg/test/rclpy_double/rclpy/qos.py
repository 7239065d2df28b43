"""Quality of service: profiles, their presets, and which offer satisfies which request."""

from __future__ import annotations

import os
from enum import Enum, IntEnum
from typing import Any

from rclpy.duration import Duration, Infinite


class QoSPolicyKind(IntEnum):
    INVALID = 1 << 0
    DURABILITY = 1 << 1
    DEADLINE = 1 << 2
    LIVELINESS = 1 << 3
    RELIABILITY = 1 << 4
    HISTORY = 1 << 5
    LIFESPAN = 1 << 6
    DEPTH = 1 << 7
    LIVELINESS_LEASE_DURATION = 1 << 8
    AVOID_ROS_NAMESPACE_CONVENTIONS = 1 << 9


def qos_policy_name_from_kind(policy_kind: QoSPolicyKind | int) -> str:
    return QoSPolicyKind(policy_kind).name


class InvalidQoSProfileException(Exception):
    def __init__(self, *args: object) -> None:
        super().__init__("Invalid QoSProfile", *args)


class QoSPolicyEnum(IntEnum):
    @classmethod
    def short_keys(cls) -> list[str]:
        return [key.lower() for key in cls.__members__]

    @classmethod
    def get_from_short_key(cls, name: str) -> int:
        return cls[name.upper()].value

    @property
    def short_key(self) -> str:
        return self.name.lower()


class HistoryPolicy(QoSPolicyEnum):
    SYSTEM_DEFAULT = 0
    KEEP_LAST = 1
    KEEP_ALL = 2
    UNKNOWN = 3


class ReliabilityPolicy(QoSPolicyEnum):
    SYSTEM_DEFAULT = 0
    RELIABLE = 1
    BEST_EFFORT = 2
    UNKNOWN = 3
    BEST_AVAILABLE = 4


class DurabilityPolicy(QoSPolicyEnum):
    SYSTEM_DEFAULT = 0
    TRANSIENT_LOCAL = 1
    VOLATILE = 2
    UNKNOWN = 3
    BEST_AVAILABLE = 4


class LivelinessPolicy(QoSPolicyEnum):
    SYSTEM_DEFAULT = 0
    AUTOMATIC = 1
    MANUAL_BY_TOPIC = 3
    UNKNOWN = 4
    BEST_AVAILABLE = 5


QoSHistoryPolicy = HistoryPolicy
QoSReliabilityPolicy = ReliabilityPolicy
QoSDurabilityPolicy = DurabilityPolicy
QoSLivelinessPolicy = LivelinessPolicy

_DEFAULTS: dict[str, Any] = {
    "history": HistoryPolicy.KEEP_LAST,
    "depth": 10,
    "reliability": ReliabilityPolicy.RELIABLE,
    "durability": DurabilityPolicy.VOLATILE,
    "lifespan": Duration(),
    "deadline": Duration(),
    "liveliness": LivelinessPolicy.SYSTEM_DEFAULT,
    "liveliness_lease_duration": Duration(),
    "avoid_ros_namespace_conventions": False,
}
_ENUMS = {
    "history": HistoryPolicy,
    "reliability": ReliabilityPolicy,
    "durability": DurabilityPolicy,
    "liveliness": LivelinessPolicy,
}


class QoSProfile:
    """``depth``, or ``history`` (with a depth where it is KEEP_LAST), must be said; else InvalidQoSProfileException."""

    __slots__ = tuple(f"_{key}" for key in _DEFAULTS)

    def __init__(self, **kwargs: Any) -> None:
        assert all(key in _DEFAULTS for key in kwargs), f"Invalid arguments passed to constructor: {kwargs.keys()!r}"
        if "history" not in kwargs and "depth" not in kwargs:
            raise InvalidQoSProfileException("History and/or depth settings are required.")
        if kwargs.get("history") == HistoryPolicy.KEEP_LAST and "depth" not in kwargs:
            raise InvalidQoSProfileException("History set to KEEP_LAST without a depth setting.")
        for key, value in (_DEFAULTS | kwargs).items():
            setattr(self, key, value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, QoSProfile) and all(getattr(self, slot) == getattr(other, slot) for slot in _DEFAULTS)

    __hash__ = None  # type: ignore[assignment]

    def __str__(self) -> str:
        return f"QoSProfile({', '.join(f'{key}={getattr(self, key)}' for key in _DEFAULTS)})"


def _policy(key: str) -> property:
    kind: Any = _ENUMS.get(key) or type(_DEFAULTS[key])

    def assign(self: QoSProfile, value: Any) -> None:
        assert isinstance(value, (kind, int) if key in _ENUMS else kind)
        setattr(self, f"_{key}", kind(value) if key in _ENUMS else value)

    return property(lambda self: getattr(self, f"_{key}"), assign)


for _key in _DEFAULTS:
    setattr(QoSProfile, _key, _policy(_key))

_SYSTEM = {key: kind.SYSTEM_DEFAULT for key, kind in _ENUMS.items()}
qos_profile_default = QoSProfile(depth=10)
qos_profile_system_default = QoSProfile(depth=0, **_SYSTEM)
qos_profile_sensor_data = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
qos_profile_services_default = QoSProfile(depth=10)
qos_profile_parameters = QoSProfile(depth=1000)
qos_profile_parameter_events = QoSProfile(depth=1000)
qos_profile_action_status_default = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
qos_profile_unknown = QoSProfile(depth=0, **{key: kind.UNKNOWN for key, kind in _ENUMS.items()})
qos_profile_best_available = QoSProfile(
    depth=10,
    reliability=ReliabilityPolicy.BEST_AVAILABLE,
    durability=DurabilityPolicy.BEST_AVAILABLE,
    liveliness=LivelinessPolicy.BEST_AVAILABLE,
)
qos_profile_rosout_default = QoSProfile(
    depth=1000, durability=DurabilityPolicy.TRANSIENT_LOCAL, lifespan=Duration(seconds=10)
)


class QoSPresetProfiles(Enum):
    UNKNOWN = qos_profile_unknown
    SYSTEM_DEFAULT = qos_profile_system_default
    SENSOR_DATA = qos_profile_sensor_data
    SERVICES_DEFAULT = qos_profile_services_default
    PARAMETERS = qos_profile_parameters
    PARAMETER_EVENTS = qos_profile_parameter_events
    ACTION_STATUS_DEFAULT = qos_profile_action_status_default
    BEST_AVAILABLE = qos_profile_best_available

    @classmethod
    def short_keys(cls) -> list[str]:
        return [key.lower() for key in cls.__members__]

    @classmethod
    def get_from_short_key(cls, name: str) -> QoSProfile:
        return cls[name.upper()].value


class QoSCompatibility(IntEnum):
    OK = 0
    WARNING = 1
    ERROR = 2


def seconds(duration: Duration) -> float | None:
    """A promised or requested span; None: no limit, which is also how nothing said is read."""
    return None if duration.nanoseconds in (0, Infinite.nanoseconds) else duration.nanoseconds / 1e9


def incompatible_policy(offered: QoSProfile, requested: QoSProfile) -> QoSPolicyKind | None:
    """The policy that keeps a publisher and a subscription apart."""
    if requested.durability == DurabilityPolicy.TRANSIENT_LOCAL and offered.durability in (
        DurabilityPolicy.VOLATILE,
        DurabilityPolicy.SYSTEM_DEFAULT,
    ):
        return QoSPolicyKind.DURABILITY
    if _longer(offered.deadline, requested.deadline):
        return QoSPolicyKind.DEADLINE
    manual = LivelinessPolicy.MANUAL_BY_TOPIC
    if (requested.liveliness == manual and offered.liveliness < manual) or _longer(
        offered.liveliness_lease_duration, requested.liveliness_lease_duration
    ):
        return QoSPolicyKind.LIVELINESS
    if requested.reliability == ReliabilityPolicy.RELIABLE and offered.reliability == ReliabilityPolicy.BEST_EFFORT:
        return QoSPolicyKind.RELIABILITY
    return None


def _longer(offered: Duration, requested: Duration) -> bool:
    promised, asked = seconds(offered), seconds(requested)
    return asked is not None and (promised is None or promised > asked)


def qos_check_compatible(publisher_qos: QoSProfile, subscription_qos: QoSProfile) -> tuple[QoSCompatibility, str]:
    policy = incompatible_policy(publisher_qos, subscription_qos)
    if policy is None:
        return QoSCompatibility.OK, ""
    return QoSCompatibility.ERROR, f"ERROR: {policy.name.capitalize()} policies are incompatible;{os.linesep}"
