from rosidl_double.messages import package

__getattr__ = package(__name__)
