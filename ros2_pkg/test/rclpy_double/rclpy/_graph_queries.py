"""What a node can ask of the graph: names, types and ends of topics and services."""

from __future__ import annotations

from typing import Any

from rosidl_double.distro import since

from rclpy._graph import Caller, Domain, Reader, Server, Writer
from rclpy._rclpy_pybind11 import NodeNameNonExistentError
from rclpy.endpoint_info import TopicEndpointInfo, info

NamesAndTypes = list[tuple[str, list[str]]]


class GraphQueries:
    """A part of :class:`rclpy.node.Node`."""

    _domain: Domain

    def get_topic_names_and_types(self, no_demangle: bool = False) -> NamesAndTypes:
        return self._named(Writer, Reader)

    def get_service_names_and_types(self) -> NamesAndTypes:
        return self._named(Server)

    def get_publisher_names_and_types_by_node(
        self, node_name: str, node_namespace: str, no_demangle: bool = False
    ) -> NamesAndTypes:
        return self._named(Writer, of=(node_name, node_namespace))

    def get_subscriber_names_and_types_by_node(
        self, node_name: str, node_namespace: str, no_demangle: bool = False
    ) -> NamesAndTypes:
        return self._named(Reader, of=(node_name, node_namespace))

    def get_service_names_and_types_by_node(self, node_name: str, node_namespace: str) -> NamesAndTypes:
        return self._named(Server, of=(node_name, node_namespace))

    def get_client_names_and_types_by_node(self, node_name: str, node_namespace: str) -> NamesAndTypes:
        return self._named(Caller, of=(node_name, node_namespace))

    def get_node_names(self) -> list[str]:
        return [name for name, _ in self.get_node_names_and_namespaces()]

    def get_node_names_and_namespaces(self) -> list[tuple[str, str]]:
        with self.handle:
            return [(node.get_name(), node.get_namespace()) for node in list(self._domain.nodes)]

    def get_fully_qualified_node_names(self) -> list[str]:
        return [f"{ns.rstrip('/')}/{name}" for name, ns in self.get_node_names_and_namespaces()]

    def count_publishers(self, topic_name: str) -> int:
        return len(self._ends(Writer, topic_name))

    def count_subscribers(self, topic_name: str) -> int:
        return len(self._ends(Reader, topic_name))

    if since("jazzy"):

        def count_clients(self, service_name: str) -> int:
            return len(self._domain.of(Caller, self._resolve(service_name, False, is_service=True)))

        def count_services(self, service_name: str) -> int:
            return len(self._domain.of(Server, self._resolve(service_name, False, is_service=True)))

    def get_publishers_info_by_topic(self, topic_name: str, no_mangle: bool = False) -> list[TopicEndpointInfo]:
        return [info(each) for each in self._ends(Writer, topic_name)]

    def get_subscriptions_info_by_topic(self, topic_name: str, no_mangle: bool = False) -> list[TopicEndpointInfo]:
        return [info(each) for each in self._ends(Reader, topic_name)]

    def _ends(self, kind: type, topic_name: str) -> list[Any]:
        with self.handle:
            return self._domain.of(kind, self.resolve_topic_name(topic_name))

    def _named(self, *kinds: type, of: tuple[str, str] | None = None) -> NamesAndTypes:
        """Raises NodeNameNonExistentError."""
        if of is not None and of not in self.get_node_names_and_namespaces():
            raise NodeNameNonExistentError(f"cannot get names and types: no node {of[0]!r} in {of[1]!r}")
        found: dict[str, set[str]] = {}
        with self.handle:
            for each in self._domain.of(kinds if len(kinds) > 1 else kinds[0]):
                if of in (None, (each.node.get_name(), each.node.get_namespace())):
                    found.setdefault(each.name, set()).add(each.kind)
        return sorted((name, sorted(types)) for name, types in found.items())
