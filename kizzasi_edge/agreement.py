"""Whether the parts of a robot fit each other, as far as that is known before anything is opened."""

from __future__ import annotations

from collections.abc import Sequence

from kizzasi_edge.align import Align, Input
from kizzasi_edge.config import RobotConfig
from kizzasi_edge.connectors.base import Actuator
from kizzasi_edge.errors import ConfigError
from kizzasi_edge.guardrails import Guardrails
from kizzasi_edge.joints import measured_names
from kizzasi_edge.predictor import Predictor


def require_one_rate(config: RobotConfig, guard: Guardrails, predictor: Predictor) -> None:
    """Raises :class:`ConfigError` unless loop, guard and model have the same rate."""
    rates = {
        f"[loop] rate_hz of {config.path}": float(config.file.loop.rate_hz),
        f"[guard] rate_hz of {guard.where}": guard.rate_hz,
        f"sample_rate_hz of {predictor.bundle.path}": predictor.sample_rate_hz,
    }
    if len(set(rates.values())) > 1:
        found = ", ".join(f"{where} = {rate:g}" for where, rate in rates.items())
        raise ConfigError(f"rates disagree: {found}; expected one rate")


def require_actuator(config: RobotConfig, guard: Guardrails, actuator: Actuator | None) -> None:
    """Raises :class:`ConfigError` where the actuator does not take the guard's commands, or must set the pace and is
    not there."""
    if actuator is None:
        if config.file.loop.pace == "device":
            raise ConfigError(
                f"{config.path}: [loop] pace: found 'device', but there is no [[output]] device to follow"
            )
    elif guard.command not in actuator.commands:
        raise ConfigError(
            f"{config.path}: [[output]] 1: [guard] command of {guard.where}: found {guard.command!r}; this device is "
            f"driven by {' or '.join(map(repr, actuator.commands))} only"
        )


def routes(predictor: Predictor, guard: Guardrails, inputs: Sequence[Input]) -> Align:
    """What the model reads, and what the guard reads beside it. Raises :class:`ConfigError`."""
    needed = [name for kind in guard.measures for name in measured_names(guard.joints, kind)]
    welcome = [*measured_names(guard.joints, "position"), *measured_names(guard.joints, "velocity")]
    return Align(predictor.input_names, inputs, (*needed, *guard.signals), welcome)


def routing_findings(
    config: RobotConfig, predictor: Predictor, guard: Guardrails, inputs: Sequence[Input]
) -> list[tuple[bool, str]]:
    """(is an error, text): what no input offers. Only a device that is open says what it offers: what it would have to
    give beyond joints and the model's inputs is a warning."""
    if all(item.source.names for item in inputs):
        try:
            routes(predictor, guard, inputs)
        except ConfigError as exc:
            return [(True, f"{config.path}: {exc}")]
        return []
    missing = [
        name for name in guard.signals if not any(item.fields.get(name, name) in item.source.names for item in inputs)
    ]
    if not missing:
        return []
    devices = [item.label for item in inputs if not item.source.names]
    return [
        (
            False,
            f"{config.path}: [[input]]: rules of {guard.where} read the signals {missing}; expected from "
            f"{' or '.join(map(repr, devices))}, which says what it offers once it is open",
        )
    ]
