"""Runs moto's AWS API with additions to its CloudFormation that deploy/stack.yaml needs.

It takes the command-line options of moto_server.
"""

from __future__ import annotations

import sys
from typing import Any

from moto.cloudformation import parsing
from moto.cloudformation.models import ChangeSet, CloudFormationBackend, Stack
from moto.cloudformation.responses import CloudFormationResponse
from moto.core.common_models import CloudFormationModel
from moto.core.responses import ActionResult
from moto.ecr.models import Repository, ecr_backends
from moto.ecs.models import Service
from moto.secretsmanager.models import secretsmanager_backends
from moto.server import main


class Secret(CloudFormationModel):  # type: ignore[misc]  # mypy doesn't analyze moto, so its classes are Any
    """AWS::SecretsManager::Secret, created in moto's Secrets Manager under the name that the stack generates."""

    __module__ = "moto.secretsmanager.models"  # moto derives a model's AWS service from it

    def __init__(self, arn: str) -> None:
        self.physical_resource_id = arn

    @staticmethod
    def cloudformation_name_type() -> str:
        return ""

    @staticmethod
    def cloudformation_type() -> str:
        return "AWS::SecretsManager::Secret"

    @classmethod
    def has_cfn_attr(cls, attr: str) -> bool:
        return attr == "Id"

    @classmethod
    def create_from_cloudformation_json(
        cls, resource_name: str, cloudformation_json: dict[str, Any], account_id: str, region_name: str, **_: Any
    ) -> Secret:
        properties = cloudformation_json["Properties"]
        backend = secretsmanager_backends[account_id][region_name]
        backend.create_secret(resource_name, None, None, properties["Description"], [], None, None, [], False)
        return cls(backend.describe_secret(resource_name).arn)

    @classmethod
    def update_from_cloudformation_json(cls, original_resource: Secret, *_: Any, **__: Any) -> Secret:
        return original_resource

    @classmethod
    def delete_from_cloudformation_json(
        cls, resource_name: str, _resource: dict[str, Any], account_id: str, region_name: str
    ) -> None:
        secretsmanager_backends[account_id][region_name].delete_secret(resource_name, None, True)

    def is_created(self) -> bool:
        return True


def with_default_count(create: Any) -> Any:
    """Wrap `create` so that a service without DesiredCount gets one task, as with CloudFormation; moto starts none."""

    def create_from_cloudformation_json(name: str, resource: dict[str, Any], *arguments: Any, **options: Any) -> Any:
        resource["Properties"].setdefault("DesiredCount", 1)
        return create(name, resource, *arguments, **options)

    return create_from_cloudformation_json


class AbsentResource:
    """A placeholder for a resource whose condition is false."""

    physical_resource_id = ""

    def delete(self, *_: str) -> None:
        """Do nothing."""


def fix_updates() -> None:
    """Restrict the update of a stack to resources that exist and can be updated.

    moto drops a resource that it can't update, and tries to update a resource that its false condition kept from being
    created.
    """

    def fixed(update: Any) -> Any:
        can_update = not hasattr(update, "__isabstractmethod__")  # else the model only inherits the abstract method

        def update_from_cloudformation_json(_cls: Any, /, original_resource: Any, **options: Any) -> Any:
            if original_resource is None:
                return AbsentResource()
            return update(original_resource=original_resource, **options) if can_update else original_resource

        return classmethod(update_from_cloudformation_json)

    for model in parsing.get_model_map().values():
        model.update_from_cloudformation_json = fixed(model.update_from_cloudformation_json)


def delete_with_images(repository: Repository, account_id: str, region_name: str) -> None:
    """Delete a repository with its images. The template's EmptyOnDelete requires this, but moto does not support it."""
    ecr_backends[account_id][region_name].delete_repository(repository.name, repository.registry_id, force=True)


def with_default_parameters(resolve: Any) -> Any:
    """Wrap `resolve` so that the previous value of a parameter that was never set is its default; moto fails there."""

    def resolve_update_parameters(self: Any, instance: Any, incoming_params: Any) -> Any:
        for name, value in instance.stack_parameters.items():
            instance.parameters.setdefault(name, value)
        return resolve(self, instance, incoming_params)

    return resolve_update_parameters


def parameters_as_text(stack: Any) -> dict[str, str]:
    """Return the parameters of a stack as text, as the API does, with lists joined by commas; moto has Python lists."""
    resolved = stack.resource_map.resolved_parameters
    return {name: ",".join(value) if isinstance(value, list) else str(value) for name, value in resolved.items()}


def with_outputs(apply: Any) -> Any:
    """Wrap `apply` so that it sets the outputs of the stack that a change set creates or changes; moto does not."""

    def applied(self: Any) -> None:
        apply(self)
        self.stack.template_dict = self.template_dict
        self.stack.output_map = self.stack._create_output_map()

    return applied


def update_termination_protection(self: CloudFormationResponse) -> ActionResult:
    """Handle UpdateTerminationProtection, which moto lacks."""
    stack = self.cloudformation_backend.get_stack(self._get_param("StackName"))
    stack.enable_termination_protection = self._get_bool_param("EnableTerminationProtection")
    return ActionResult({"StackId": stack.stack_id})


if __name__ == "__main__":
    assert Secret.cloudformation_type() in parsing.get_model_map()
    fix_updates()
    resolve = CloudFormationBackend._resolve_update_parameters
    CloudFormationBackend._resolve_update_parameters = with_default_parameters(resolve)
    Stack.stack_parameters = property(parameters_as_text)
    ChangeSet.apply = with_outputs(ChangeSet.apply)
    CloudFormationResponse.update_termination_protection = update_termination_protection
    Repository.delete = delete_with_images
    Service.create_from_cloudformation_json = with_default_count(Service.create_from_cloudformation_json)
    main(sys.argv[1:])
