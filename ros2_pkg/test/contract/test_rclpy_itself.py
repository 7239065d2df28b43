"""What the node relies on in rclpy, on the double as on the real one: where this fails, the other contract tests on
the double say nothing."""

from __future__ import annotations

import contextlib
import threading
import time

import pytest
import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetAvailableTransitions, GetState
from rcl_interfaces.msg import FloatingPointRange, IntegerRange, Log, ParameterDescriptor, SetParametersResult
from rcl_interfaces.srv import DescribeParameters, SetParameters
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup, ReentrantCallbackGroup
from rclpy.exceptions import (
    InvalidHandle,
    InvalidNamespaceException,
    InvalidNodeNameException,
    InvalidParameterTypeException,
    InvalidParameterValueException,
    InvalidServiceNameException,
    InvalidTopicNameException,
    ParameterNotDeclaredException,
    ParameterUninitializedException,
)
from rclpy.executors import ExternalShutdownException, MultiThreadedExecutor, SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode, TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.qos import (
    DurabilityPolicy,
    QoSPolicyKind,
    QoSProfile,
    ReliabilityPolicy,
    qos_profile_sensor_data,
)
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64, Float64MultiArray
from std_srvs.srv import Trigger

try:
    from rclpy.event_handler import PublisherEventCallbacks, SubscriptionEventCallbacks
except ImportError:  # humble
    from rclpy.qos_event import PublisherEventCallbacks, SubscriptionEventCallbacks

pytestmark = pytest.mark.usefixtures("ros")
SUCCESS, FAILURE, ERROR = (
    TransitionCallbackReturn.SUCCESS,
    TransitionCallbackReturn.FAILURE,
    TransitionCallbackReturn.ERROR,
)


class Scripted(LifecycleNode):
    """Answers each transition as told; an exception is raised."""

    def __init__(self, name="scripted", **answers):
        self.answers, self.calls = answers, []
        super().__init__(name)

    def _answer(self, what, state):
        self.calls.append((what, state.label))
        answer = self.answers.get(what, SUCCESS)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def on_configure(self, state):
        return self._answer("configure", state)

    def on_activate(self, state):
        answer = self._answer("activate", state)
        return super().on_activate(state) if answer == SUCCESS else answer

    def on_deactivate(self, state):
        answer = self._answer("deactivate", state)
        return super().on_deactivate(state) if answer == SUCCESS else answer

    def on_cleanup(self, state):
        return self._answer("cleanup", state)

    def on_shutdown(self, state):
        return self._answer("shutdown", state)

    def on_error(self, state):
        return self._answer("error", state)


def state_of(node):
    return node._state_machine.current_state[1]


# Lifecycle


def test_a_node_lives_through_all_its_transitions_and_hears_where_each_began():
    node = Scripted()
    assert state_of(node) == "unconfigured"
    for trigger, state in (
        (node.trigger_configure, "inactive"),
        (node.trigger_activate, "active"),
        (node.trigger_deactivate, "inactive"),
        (node.trigger_cleanup, "unconfigured"),
        (node.trigger_shutdown, "finalized"),
    ):
        assert trigger() == SUCCESS
        assert state_of(node) == state
    begun = ["unconfigured", "inactive", "active", "inactive", "unconfigured"]
    assert node.calls == list(zip(["configure", "activate", "deactivate", "cleanup", "shutdown"], begun, strict=True))
    assert node.trigger_shutdown() is None


@pytest.mark.parametrize(
    ("failing", "way", "state"),
    [
        ("configure", [], "unconfigured"),
        ("activate", ["configure"], "inactive"),
        ("deactivate", ["configure", "activate"], "active"),
        ("cleanup", ["configure"], "inactive"),
        ("shutdown", ["configure"], "finalized"),
    ],
)
def test_a_failure_leads_back_and_a_failed_shutdown_on(failing, way, state):
    node = Scripted(**{failing: FAILURE})
    for step in way:
        assert getattr(node, f"trigger_{step}")() == SUCCESS
    assert getattr(node, f"trigger_{failing}")() == FAILURE
    assert state_of(node) == state
    assert "error" not in [what for what, _ in node.calls]


@pytest.mark.parametrize("fault", [ERROR, RuntimeError("boom")], ids=["ERROR", "raises"])
@pytest.mark.parametrize(
    ("on_error", "state"), [(SUCCESS, "unconfigured"), (FAILURE, "finalized"), (ERROR, "finalized")]
)
@pytest.mark.parametrize("failing", ["configure", "activate", "deactivate", "cleanup", "shutdown"])
def test_an_error_or_an_exception_ends_in_on_error_which_hears_where_the_transition_began(
    fault, on_error, state, failing
):
    node = Scripted(**{failing: fault, "error": on_error})
    way = {"activate": ["configure"], "deactivate": ["configure", "activate"], "cleanup": ["configure"]}
    for step in way.get(failing, []):
        assert getattr(node, f"trigger_{step}")() == SUCCESS
    before = state_of(node)
    assert getattr(node, f"trigger_{failing}")() == ERROR
    assert state_of(node) == state
    assert node.calls[-2:] == [(failing, before), ("error", before)]


def test_an_exception_in_on_error_finalizes():
    node = Scripted(activate=ValueError("a"), error=ValueError("b"))
    node.trigger_configure()
    assert node.trigger_activate() == ERROR
    assert state_of(node) == "finalized"


@pytest.mark.parametrize("trigger", ["activate", "deactivate", "cleanup"])
def test_a_transition_that_does_not_begin_here_changes_nothing(trigger):
    node = Scripted()
    with contextlib.suppress(RuntimeError):  # raised before kilted
        assert getattr(node, f"trigger_{trigger}")() != SUCCESS
    assert state_of(node) == "unconfigured"
    assert node.calls == []


def test_the_services_change_and_tell_the_state(spinning, until):
    node, other = Scripted("managed"), rclpy.create_node("other")
    change = other.create_client(ChangeState, "/managed/change_state")
    get = other.create_client(GetState, "/managed/get_state")
    available = other.create_client(GetAvailableTransitions, "/managed/get_available_transitions")
    with spinning(node, other):
        assert all(client.wait_for_service(timeout_sec=10) for client in (change, get, available))
        found = get.call(GetState.Request()).current_state
        assert (found.id, found.label) == (State.PRIMARY_STATE_UNCONFIGURED, "unconfigured")
        offered = available.call(GetAvailableTransitions.Request()).available_transitions
        assert {each.transition.label for each in offered} == {"configure", "shutdown"}
        assert {each.start_state.label for each in offered} == {"unconfigured"}
        configure = ChangeState.Request(transition=Transition(id=Transition.TRANSITION_CONFIGURE))
        assert change.call(configure).success
        assert change.call(ChangeState.Request(transition=Transition(label="activate"))).success
        assert get.call(GetState.Request()).current_state.label == "active"
        assert not change.call(ChangeState.Request(transition=Transition(label="configure"))).success, "not from here"
        assert get.call(GetState.Request()).current_state.label == "active"


def test_a_failed_transition_is_no_success_of_the_service(spinning):
    node, other = Scripted("managed", configure=FAILURE), rclpy.create_node("other")
    change = other.create_client(ChangeState, "/managed/change_state")
    with spinning(node, other):
        assert change.wait_for_service(timeout_sec=10)
        configure = ChangeState.Request(transition=Transition(id=Transition.TRANSITION_CONFIGURE))
        assert not change.call(configure).success
    assert state_of(node) == "unconfigured"


def test_a_transition_by_id_that_does_not_begin_here_is_refused_or_ends_the_executor():
    node, other = Scripted("managed"), rclpy.create_node("other")
    change = other.create_client(ChangeState, "/managed/change_state")
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    executor.add_node(other)
    assert change.wait_for_service(timeout_sec=10)
    future = change.call_async(ChangeState.Request(transition=Transition(id=Transition.TRANSITION_CLEANUP)))
    with contextlib.suppress(RuntimeError):  # before kilted
        executor.spin_until_future_complete(future, timeout_sec=10)
        assert not future.result().success
    executor.shutdown()
    assert state_of(node) == "unconfigured"
    assert node.calls == []


def test_a_lifecycle_publisher_is_silent_unless_active_and_an_error_does_not_silence_it(spinning, until):
    node, other, got = Scripted(cleanup=ERROR), rclpy.create_node("other"), []
    publisher = node.create_lifecycle_publisher(Float64, "value", 10)
    plain = node.create_publisher(Float64, "value", 10)
    other.create_subscription(Float64, "value", lambda message: got.append(message.data), 10)
    with spinning(node, other):
        until(lambda: publisher.get_subscription_count() == 1 and plain.get_subscription_count() == 1)
        publisher.publish(Float64(data=1.0))
        node.trigger_configure()
        publisher.publish(Float64(data=2.0))
        node.trigger_activate()
        assert publisher.is_activated
        publisher.publish(Float64(data=3.0))
        until(lambda: got)
        node.trigger_deactivate()
        publisher.publish(Float64(data=4.0))
        plain.publish(Float64(data=5.0))
        until(lambda: 5.0 in got)
    assert got == [3.0, 5.0]


def test_only_deactivate_silences_a_lifecycle_publisher():
    node = Scripted(deactivate=ERROR)
    publisher = node.create_lifecycle_publisher(Float64, "value", 10)
    node.trigger_configure()
    node.trigger_activate()
    node.trigger_deactivate()
    assert state_of(node) == "unconfigured"
    assert publisher.is_activated


# Parameters


def ranged(low, high, step=0.0):
    limits = FloatingPointRange(from_value=low, to_value=high, step=step)
    return ParameterDescriptor(description="how often", floating_point_range=[limits])


def test_a_parameter_has_a_type_a_range_and_a_description():
    node = rclpy.create_node("node")
    assert node.declare_parameter("rate_hz", 10.0, ranged(0.1, 100.0)).value == 10.0
    assert node.describe_parameter("rate_hz").description == "how often"

    def put(*arguments, **keywords):
        return node.set_parameters([Parameter("rate_hz", *arguments, **keywords)])[0]

    assert put(value=100.0).successful
    for value in (100.1, 0.0, float("nan"), -1.0):
        refused = put(value=value)
        assert not refused.successful
        assert "out of range" in refused.reason
    assert "Wrong parameter type" in put(value=5).reason, "an int is no double"
    assert not put(Parameter.Type.NOT_SET).successful
    assert node.get_parameter("rate_hz").value == 100.0


def test_a_step_of_a_range_is_kept_and_the_edges_are_always_in_it():
    node = rclpy.create_node("node")
    node.declare_parameter("a", 0.5, ranged(0.0, 1.0, 0.25))
    assert "valid step" in node.set_parameters([Parameter("a", value=0.3)])[0].reason
    limits = IntegerRange(from_value=1, to_value=10, step=4)
    node.declare_parameter("n", 5, ParameterDescriptor(integer_range=[limits]))
    results = node.set_parameters([Parameter("n", value=value) for value in (1, 5, 9, 10, 6, 11)])
    assert [result.successful for result in results] == [True, True, True, True, False, False]


def test_declaring_refuses_what_setting_refuses():
    node = rclpy.create_node("node", parameter_overrides=[Parameter("b", value=7.0), Parameter("c", value="text")])
    with pytest.raises(InvalidParameterValueException):
        node.declare_parameter("a", 7.0, ranged(0.0, 1.0))
    with pytest.raises(InvalidParameterValueException):
        node.declare_parameter("b", 0.5, ranged(0.0, 1.0))
    with pytest.raises(InvalidParameterTypeException):
        node.declare_parameter("c", 1.5)
    assert not any(node.has_parameter(name) for name in "abc")


def test_a_read_only_parameter_is_set_by_an_override_only():
    node = rclpy.create_node("node", parameter_overrides=[Parameter("config", value="b.toml")])
    assert node.declare_parameter("config", "a.toml", ParameterDescriptor(read_only=True)).value == "b.toml"
    refused = node.set_parameters([Parameter("config", value="c.toml")])[0]
    assert not refused.successful
    assert "read-only" in refused.reason
    assert node.get_parameter("config").value == "b.toml"


def test_what_was_not_declared_or_has_no_value_raises():
    node = rclpy.create_node("node")
    with pytest.raises(ParameterNotDeclaredException):
        node.get_parameter("unknown")
    with pytest.raises(ParameterNotDeclaredException):
        node.set_parameters([Parameter("unknown", value=1)])
    node.declare_parameter("names", Parameter.Type.STRING_ARRAY)
    with pytest.raises(ParameterUninitializedException):
        node.get_parameter("names")
    assert node.set_parameters([Parameter("names", Parameter.Type.STRING_ARRAY, [])])[0].successful
    assert list(node.get_parameter("names").value) == []


def test_an_empty_list_alone_is_an_array_of_bytes():
    node = rclpy.create_node("node")
    node.declare_parameter("names", [])
    assert node.get_parameter("names").type_ == Parameter.Type.BYTE_ARRAY
    assert not node.set_parameters([Parameter("names", value=["a:=b"])])[0].successful


def test_callbacks_judge_each_parameter_also_at_its_declaration_and_the_last_added_first():
    node, seen = rclpy.create_node("node"), []

    def judge(name, verdict):
        def callback(parameters):
            seen.append((name, [parameter.name for parameter in parameters]))
            return SetParametersResult(successful=verdict(parameters), reason=f"{name} says no")

        return callback

    first = judge("first", lambda parameters: True)
    second = judge("second", lambda parameters: all(parameter.value < 5 for parameter in parameters))
    node.add_on_set_parameters_callback(first)
    node.add_on_set_parameters_callback(second)
    node.declare_parameter("a", 1)
    assert seen == [("second", ["a"]), ("first", ["a"])]
    with pytest.raises(InvalidParameterValueException, match="second says no"):
        node.declare_parameter("b", 9)
    results = node.set_parameters([Parameter("a", value=value) for value in (2, 9, 3)])
    assert [result.successful for result in results] == [True, False, True]
    assert results[1].reason == "second says no"
    assert node.get_parameter("a").value == 3
    node.remove_on_set_parameters_callback(second)
    assert node.set_parameters([Parameter("a", value=9)])[0].successful


def test_atomically_all_or_none():
    node = rclpy.create_node("node")
    node.declare_parameter("a", 0.5, ranged(0.0, 1.0))
    node.declare_parameter("b", 0.5, ranged(0.0, 1.0))
    assert not node.set_parameters_atomically([Parameter("a", value=0.6), Parameter("b", value=2.0)]).successful
    assert [node.get_parameter(name).value for name in "ab"] == [0.5, 0.5]


def test_parameters_by_service(spinning):
    node, other = rclpy.create_node("node"), rclpy.create_node("other")
    node.declare_parameter("rate_hz", 10.0, ranged(0.1, 100.0))
    put = other.create_client(SetParameters, "/node/set_parameters")
    describe = other.create_client(DescribeParameters, "/node/describe_parameters")
    with spinning(node, other):
        assert put.wait_for_service(timeout_sec=10)
        assert describe.wait_for_service(timeout_sec=10)
        wanted = [Parameter("rate_hz", value=value).to_parameter_msg() for value in (20.0, 2000.0)]
        results = put.call(SetParameters.Request(parameters=wanted)).results
        assert [result.successful for result in results] == [True, False]
        described = describe.call(DescribeParameters.Request(names=["rate_hz"])).descriptors[0]
        assert described.floating_point_range[0].to_value == 100.0
    assert node.get_parameter("rate_hz").value == 20.0


# Topics


def test_a_raw_subscription_gets_cdr_and_publish_takes_it(spinning, until):
    node, raw, decoded = rclpy.create_node("node"), [], []
    node.create_subscription(JointState, "joints", raw.append, 10, raw=True)
    node.create_subscription(JointState, "joints", decoded.append, 10)
    publisher = node.create_publisher(JointState, "joints", 10)
    message = JointState(name=["a", "b"], position=[1.0, 2.0])
    message.header.frame_id = "base"
    with spinning(node):
        until(lambda: publisher.get_subscription_count() == 2)
        publisher.publish(message)
        until(lambda: raw and decoded)
        assert isinstance(raw[0], bytes)
        assert raw[0][:4] == bytes([0, 1, 0, 0])
        assert decoded[0] == message
        assert deserialize_message(raw[0], JointState) == message
        publisher.publish(serialize_message(message))
        until(lambda: len(raw) == 2 and len(decoded) == 2)
    assert decoded[1] == message
    assert raw[1][:4] == bytes([0, 1, 0, 0])


def test_publish_takes_nothing_but_its_type_and_bytes():
    node = rclpy.create_node("node")
    publisher = node.create_publisher(Float64, "value", 10)
    for wrong in (1.0, bytearray(12), memoryview(bytes(12)), JointState(), None):
        with pytest.raises(TypeError):
            publisher.publish(wrong)


def test_messages_as_rosidl_makes_them():
    state = JointState()
    assert (list(state.name), list(state.position)) == ([], [])
    assert state == JointState()
    state.position = [1.0, 2.5]
    assert state.position.typecode == "d"
    assert state != JointState()
    level = DiagnosticStatus(level=DiagnosticStatus.WARN, values=[KeyValue(key="k", value="v")])
    assert level.level == b"\x01"
    assert deserialize_message(serialize_message(DiagnosticArray(status=[level])), DiagnosticArray).status[0] == level
    with pytest.raises(AttributeError):
        state.positions = [1.0]
    for wrong in ({"positions": [1.0]}, {"position": ["one"]}, {"name": "a"}):
        with pytest.raises(AssertionError):
            JointState(**wrong, check_fields=True)  # the default on humble, which knows no such word either
    assert Float64MultiArray.get_fields_and_field_types()["data"] == "sequence<double>"


def test_a_slow_subscriber_keeps_the_newest_up_to_its_depth(until):
    node, got = rclpy.create_node("node"), []
    node.create_subscription(Float64, "value", lambda message: got.append(message.data), 3)
    publisher = node.create_publisher(Float64, "value", 20)
    until(lambda: publisher.get_subscription_count() == 1)
    for value in range(10):
        publisher.publish(Float64(data=float(value)))
    time.sleep(0.2)
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    end = time.monotonic() + 1
    while time.monotonic() < end:
        executor.spin_once(timeout_sec=0.05)
    executor.shutdown()
    assert got == [7.0, 8.0, 9.0]


def test_a_latched_message_waits_for_whoever_comes_and_asks_for_it(spinning, until):
    node, late, volatile = rclpy.create_node("node"), [], []
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    publisher = node.create_publisher(Float64, "value", latched)
    for value in (1.0, 2.0):
        publisher.publish(Float64(data=value))
    other = rclpy.create_node("other")
    other.create_subscription(Float64, "value", late.append, latched)
    other.create_subscription(Float64, "value", volatile.append, 1)
    with spinning(node, other):
        until(lambda: late)
        time.sleep(0.2)
    assert late == [Float64(data=2.0)]
    assert volatile == []


def test_ends_that_do_not_match_hear_why(spinning, until):
    node, told = rclpy.create_node("node"), []
    node.create_subscription(
        Float64,
        "value",
        lambda message: told.append("a message"),
        QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE),
        event_callbacks=SubscriptionEventCallbacks(incompatible_qos=lambda event: told.append(("reader", event))),
    )
    publisher = node.create_publisher(
        Float64,
        "value",
        qos_profile_sensor_data,
        event_callbacks=PublisherEventCallbacks(incompatible_qos=lambda event: told.append(("writer", event))),
    )
    with spinning(node):
        until(lambda: len(told) >= 2)
        publisher.publish(Float64())
        time.sleep(0.2)
    assert sorted(who for who, _ in told) == ["reader", "writer"]
    for _, event in told:
        assert event.total_count == 1
        assert event.last_policy_kind == QoSPolicyKind.RELIABILITY
    assert publisher.get_subscription_count() == 0
    assert (node.count_publishers("value"), node.count_subscribers("value")) == (1, 1)


def test_the_graph_shows_names_types_and_qos(until):
    node = rclpy.create_node("node", namespace="arm")
    node.create_publisher(Float64MultiArray, "~/commands", 1)
    node.create_subscription(JointState, "joint_states", lambda message: None, qos_profile_sensor_data)

    def seen():
        return dict(node.get_topic_names_and_types())

    until(lambda: "/arm/node/commands" in seen() and "/arm/joint_states" in seen())
    assert seen()["/arm/joint_states"] == ["sensor_msgs/msg/JointState"]
    (info,) = node.get_publishers_info_by_topic("/arm/node/commands")
    assert (info.node_name, info.node_namespace) == ("node", "/arm")
    assert info.topic_type == "std_msgs/msg/Float64MultiArray"
    assert info.qos_profile.reliability == ReliabilityPolicy.RELIABLE


def test_names_are_remapped_and_parameters_overridden_from_the_command_line(tmp_path):
    file = tmp_path / "p.yaml"
    ours = "/**:\n  ros__parameters:\n    rate_hz: 5.0\n    deep:\n      er: [a, b]\n"
    file.write_text(ours + "other:\n  ros__parameters:\n    rate_hz: 9.0\n")
    given = ["--ros-args", "-r", "__node:=called", "-r", "__ns:=/ns", "-r", "joints:=/arm/joint_states"]
    given += ["-r", "~/verdict:=judged", "--params-file", str(file), "-p", "n:=3", "-p", "flag:=true"]
    node = rclpy.create_node("node", cli_args=given)
    assert node.get_name() == "called"
    assert node.get_namespace() == "/ns"
    assert node.create_publisher(Float64, "joints", 1).topic_name == "/arm/joint_states"
    assert node.resolve_topic_name("~/verdict") == "/ns/judged"
    assert node.resolve_topic_name("~/state") == "/ns/called/state"
    assert node.declare_parameter("rate_hz", 1.0).value == 5.0
    assert list(node.declare_parameter("deep.er", ["x"]).value) == ["a", "b"]
    assert node.declare_parameter("n", 1).value == 3
    assert node.declare_parameter("flag", False).value is True


# Executors


def test_services_answer_while_another_callback_of_a_reentrant_group_blocks(spinning, until):
    node, other, go, blocked = (
        rclpy.create_node("node"),
        rclpy.create_node("other"),
        threading.Event(),
        threading.Event(),
    )
    group = ReentrantCallbackGroup()

    def wait(request, response):
        blocked.set()
        response.success = go.wait(10)
        return response

    def answer(request, response):
        response.success = True
        return response

    node.create_service(Trigger, "~/wait", wait, callback_group=group)
    node.create_service(Trigger, "~/answer", answer, callback_group=group)
    waiting, answering = (other.create_client(Trigger, f"/node/{name}") for name in ("wait", "answer"))
    with spinning(node, other, executor=MultiThreadedExecutor(num_threads=4)):
        assert waiting.wait_for_service(timeout_sec=10)
        assert answering.wait_for_service(timeout_sec=10)
        future = waiting.call_async(Trigger.Request())
        assert blocked.wait(10)
        assert answering.call(Trigger.Request()).success
        assert not future.done()
        go.set()
        until(future.done)
    assert future.result().success


def test_callbacks_of_a_mutually_exclusive_group_never_overlap(spinning, until):
    node, group, running, overlaps, calls = rclpy.create_node("node"), MutuallyExclusiveCallbackGroup(), [], [], []

    def tick():
        running.append(1)
        overlaps.append(len(running) > 1)
        time.sleep(0.005)
        running.pop()
        calls.append(1)

    for _ in range(3):
        node.create_timer(0.001, tick, callback_group=group)
    with spinning(node, executor=MultiThreadedExecutor(num_threads=4)):
        until(lambda: len(calls) > 30)
    assert not any(overlaps)


def test_a_timer_leaves_out_what_it_missed():
    node, ticks = rclpy.create_node("node"), []
    timer = node.create_timer(0.05, lambda: ticks.append(time.monotonic()))
    time.sleep(0.6)
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    begin = time.monotonic()
    for _ in range(10):
        executor.spin_once(timeout_sec=0)
    assert 1 <= len(ticks) <= 2 + (time.monotonic() - begin) / 0.05
    timer.cancel()
    assert timer.is_canceled()
    ticks.clear()
    executor.spin_once(timeout_sec=0.2)
    executor.shutdown()
    assert not ticks


def test_what_a_callback_raises_comes_out_of_spin():
    node = rclpy.create_node("node")

    def fail():
        raise ZeroDivisionError

    node.create_timer(0.01, fail)
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    with pytest.raises(ZeroDivisionError):
        executor.spin()
    executor.shutdown()


def test_a_service_callback_must_give_the_response_back(until):
    node = rclpy.create_node("node")
    node.create_service(Trigger, "~/arm", lambda request, response: None)
    client = node.create_client(Trigger, "/node/arm")
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    assert client.wait_for_service(timeout_sec=10)
    client.call_async(Trigger.Request())
    with pytest.raises(TypeError):
        executor.spin()
    executor.shutdown()


def test_the_end_of_the_context_ends_a_spin_that_waits(ros):
    node = rclpy.create_node("node")
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    threading.Timer(0.2, ros.try_shutdown).start()
    with pytest.raises(ExternalShutdownException):
        executor.spin()
    assert not ros.ok()


def test_a_future_is_waited_for_no_longer_than_said(ros):
    node = rclpy.create_node("node")
    future = rclpy.Future() if hasattr(rclpy, "Future") else rclpy.task.Future()
    begin = time.monotonic()
    rclpy.spin_until_future_complete(node, future, timeout_sec=0.2)
    assert 0.15 < time.monotonic() - begin < 5
    assert not future.done()


def test_guard_conditions_and_shutdown_from_another_thread(spinning, until):
    node, called = rclpy.create_node("node"), []
    guard = node.create_guard_condition(lambda: called.append(threading.get_ident()))
    with spinning(node):
        guard.trigger()
        until(lambda: called)
    assert called[0] != threading.get_ident()


def test_a_destroyed_publisher_or_subscription_is_gone_and_raises(until):
    node = rclpy.create_node("node")
    publisher = node.create_publisher(Float64, "value", 1)
    subscription = node.create_subscription(Float64, "value", lambda message: None, 1)
    until(lambda: publisher.get_subscription_count() == 1)
    assert node.destroy_subscription(subscription)
    until(lambda: publisher.get_subscription_count() == 0)
    assert node.destroy_publisher(publisher)
    assert not node.destroy_publisher(publisher)
    until(lambda: node.count_publishers("value") == 0)
    with pytest.raises(InvalidHandle):
        publisher.publish(Float64())


def test_names_that_are_none_are_refused():
    with pytest.raises(InvalidNodeNameException):
        rclpy.create_node("a node")
    with pytest.raises(InvalidNamespaceException):
        rclpy.create_node("node", namespace="/a//b")
    node = rclpy.create_node("node")
    for name in ("", "a topic", "topic/", "a//b", "1st", "a/~/b"):
        with pytest.raises(InvalidTopicNameException):
            node.create_publisher(Float64, name, 1)
    with pytest.raises(InvalidServiceNameException):
        node.create_service(Trigger, "a service", lambda request, response: response)
    with pytest.raises(TypeError):
        node.create_publisher(Float64, "value", "ten")


# Logging


def test_a_log_line_is_on_rosout_and_throttled_by_its_place(spinning, until):
    node, other, lines = rclpy.create_node("node"), rclpy.create_node("other"), []
    other.create_subscription(Log, "/rosout", lines.append, 100)
    with spinning(node, other):
        until(lambda: any(info.node_name == "node" for info in other.get_publishers_info_by_topic("/rosout")))
        time.sleep(0.2)
        for number in range(5):
            node.get_logger().warning(f"throttled {number}", throttle_duration_sec=60.0)
            node.get_logger().warning(f"once {number}", once=True)
        node.get_logger().warning("the last")
        until(lambda: any(line.msg == "the last" for line in lines))
    assert [line.msg for line in lines if line.name == "node"] == ["throttled 0", "once 0", "the last"]
    assert {line.level for line in lines if line.name == "node"} == {30}
