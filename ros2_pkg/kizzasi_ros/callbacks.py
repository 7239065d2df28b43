"""What rclpy calls, kept from failing in silence, or from ending the executor."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from traceback import format_exc
from typing import Any, TypeVar

from rclpy.executors import Executor, ExternalShutdownException, ShutdownException
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.node import Node
from std_srvs.srv import Trigger

from kizzasi_edge.errors import KizzasiError

OfNode = TypeVar("OfNode", bound=Node)


def logged(
    transition: Callable[[OfNode, Any], TransitionCallbackReturn],
) -> Callable[[OfNode, Any], TransitionCallbackReturn]:
    """What a transition raises ends in on_error, about which rclpy says nothing."""

    @wraps(transition)
    def guarded(node: OfNode, state: Any) -> TransitionCallbackReturn:
        try:
            return transition(node, state)
        except Exception:
            node.get_logger().error(f"{transition.__name__}: {format_exc()}")
            return TransitionCallbackReturn.ERROR

    return guarded


def answering(act: Callable[[], None]) -> Callable[[Trigger.Request, Trigger.Response], Trigger.Response]:
    """A service's callback: done, or the reason why not."""

    def answer(_: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        try:
            act()
            response.success = True
        except KizzasiError as exc:
            response.success, response.message = False, str(exc)
        except Exception as exc:  # who asked is to hear of a fault of ours, too
            response.success, response.message = False, f"{type(exc).__name__}: {exc}"
        return response

    return answer


def spin(executor: Executor, node: Node) -> None:
    """Until the executor is shut down. What a callback raises must not leave a robot without its services: before
    Kilted, a transition that is asked for by its number in the wrong state does that (rclpy issue 1209)."""
    while True:
        try:
            executor.spin()
        except (ExternalShutdownException, ShutdownException):
            return
        except Exception as exc:
            node.get_logger().error(f"a callback failed: {exc}")
        else:
            return
