"""A node's parameters for others: the six services that `ros2 param` uses."""

from __future__ import annotations

from typing import Any

from rcl_interfaces.msg import SetParametersResult
from rcl_interfaces.srv import (
    DescribeParameters,
    GetParameters,
    GetParameterTypes,
    ListParameters,
    SetParameters,
    SetParametersAtomically,
)

from rclpy.exceptions import ParameterNotDeclaredException, ParameterUninitializedException
from rclpy.parameter import Parameter
from rclpy.qos import qos_profile_parameters


class ParameterService:
    def __init__(self, node: Any) -> None:
        self._node = node
        for kind, name, callback in (
            (DescribeParameters, "describe_parameters", self._describe),
            (GetParameters, "get_parameters", self._get),
            (GetParameterTypes, "get_parameter_types", self._types),
            (ListParameters, "list_parameters", self._list),
            (SetParameters, "set_parameters", self._set),
            (SetParametersAtomically, "set_parameters_atomically", self._set_atomically),
        ):
            node.create_service(kind, f"~/{name}", callback, qos_profile=qos_profile_parameters)

    def _describe(self, request: Any, response: Any) -> Any:
        for name in request.names:
            try:
                response.descriptors.append(self._node.describe_parameter(name))
            except ParameterNotDeclaredException:
                response.descriptors = []
                break
        return response

    def _get(self, request: Any, response: Any) -> Any:
        for name in request.names:
            try:
                response.values.append(self._node.get_parameter(name).get_parameter_value())
            except (ParameterNotDeclaredException, ParameterUninitializedException):
                response.values = []
                break
        return response

    def _types(self, request: Any, response: Any) -> Any:
        for name in request.names:
            try:
                response.types.append(self._node.get_parameter_type(name))
            except ParameterNotDeclaredException:
                del response.types[:]
                break
        return response

    def _list(self, request: Any, response: Any) -> Any:
        response.result = self._node._listed(list(request.prefixes), request.depth)
        return response

    def _set(self, request: Any, response: Any) -> Any:
        for message in request.parameters:
            try:
                result = self._node.set_parameters_atomically([Parameter.from_parameter_msg(message)])
            except ParameterNotDeclaredException as exc:
                result = SetParametersResult(successful=False, reason=str(exc))
            response.results.append(result)
        return response

    def _set_atomically(self, request: Any, response: Any) -> Any:
        try:
            parameters = [Parameter.from_parameter_msg(message) for message in request.parameters]
            response.result = self._node.set_parameters_atomically(parameters)
        except ParameterNotDeclaredException as exc:
            response.result = SetParametersResult(successful=False, reason=str(exc))
        return response
