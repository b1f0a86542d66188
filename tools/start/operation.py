"""What `make new-operation` writes: the code, the entries and the tests of an operation, in every file that has a part.

The steps call nothing yet, and say where to; all the rest is meant to stay.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from string import Template
from textwrap import dedent, indent
from uuid import NAMESPACE_URL, uuid5


@dataclass(frozen=True)
class Words:
    """What an operation and its parts are called.

    Args:
        plural: its name, as in the module's: ``price_alerts``.
        singular: what it makes one of: ``price_alert``.
        steps: its steps.
    """

    plural: str
    singular: str
    steps: tuple[str, ...]

    @property
    def type(self) -> str:
        """The class: ``PriceAlert``."""
        return self.singular.title().replace("_", "")

    @property
    def words(self) -> str:
        """As people say it: ``price alert``."""
        return self.singular.replace("_", " ")

    @property
    def path(self) -> str:
        """Where it is: ``/v1/price-alerts``."""
        return f"/v1/{self.plural.replace('_', '-')}"

    @property
    def example(self) -> dict[str, str]:
        """What one looks like."""
        id_ = uuid5(NAMESPACE_URL, self.path)
        made = {step: str(uuid5(id_, step)) for step in self.steps}
        return {"id": f"{self.kind}-{id_}", "name": "News", **made}

    @property
    def kind(self) -> str:
        """What its ids begin with: ``price-alert``."""
        return self.singular.replace("_", "-")

    def filled(self, text: str, **parts: str) -> str:
        """A template's text with these words, and further parts, in it."""
        names = ("plural", "singular", "type", "words", "path", "kind")
        article = "an" if self.singular[0] in "aeiou" else "a"
        words = {name: getattr(self, name) for name in names}
        return Template(dedent(text)).substitute(words, article=article, **parts)


def module(words: Words) -> str:
    """The business logic: src/provisioning/PLURAL.py."""
    steps = "".join(
        f'{step} = operation.step(\n    "{step}",\n    lambda key: do_{step}({words.singular}, key),\n'
        f'    undo=lambda: undo_{step}(operation.derived_id("{step}")),\n)\n'
        for step in words.steps
    )
    return words.filled(
        '''\
        """Create $article $words, once."""

        from typing import Annotated

        from idempotency import Body, Completion, Operation
        from provisioning.resources import Resources


        class ${type}Request(Body):
            """The body of ``POST $path``.

            Args:
                name: what people call the $words.
            """

            name: Annotated[str, {"minLength": 1, "maxLength": 100}]


        def create($singular: ${type}Request, operation: Operation, resources: Resources) -> Completion:
            """Create $article $words; if a step fails for good, those before it are undone."""
            id_ = f"$kind-{operation.derived_id('$singular')}"
        $steps    representation = {$members}
            return Completion(
                201,
                representation,
                headers={"Location": f"{operation.request.base_path}$path/{id_}"},
                rows=[resources.row("$singular", representation, operation.principal)],
            )
        ''',
        steps=indent(steps, "    "),
        members=", ".join(
            ['"id": id_', f'"name": {words.singular}.name', *(f'"{step}": {step}' for step in words.steps)]
        ),
    ) + "".join(_step(words, step) for step in words.steps)


def _step(words: Words, step: str) -> str:
    return words.filled(
        '''

        def do_$step($singular: ${type}Request, key: str) -> str:  # noqa: ARG001 - until it is used
            """Do step "$step": call its service here, and send it the key, which is the same in every attempt.

            Args:
                $singular: what the client asked for.
                key: the step's own; with it, a repetition has no second effect.

            Returns:
                What the service calls its effect: JSON, which later attempts get instead of calling again.
            """
            return key


        def undo_$step(key: str) -> None:
            """Undo step "$step"; succeed if there is nothing to undo.

            Args:
                key: the one that the step was done with, if it was done.
            """
        ''',
        step=step,
    )


def route(words: Words) -> str:
    """The functions of src/api.py."""
    return words.filled(
        '''\
        @app.post("$path")
        @idempotent(recoverable)
        def create_$singular($singular: $plural.${type}Request, operation: Operation) -> Completion:
            """Create $article $words."""
            return $plural.create($singular, operation, resources())


        @app.get("$path/<${singular}_id>")
        def get_$singular(${singular}_id: str) -> dict[str, Any]:
            """Show one of the caller's ${plain}."""
            return resources().get("$singular", ${singular}_id, principal(app.current_event))


        ''',
        plain=words.plural.replace("_", " "),
    )


def events(words: Words, parameters: str) -> str:
    """The entries of template.yaml under the API's events.

    Args:
        words: what the operation is called.
        parameters: the value of ``RequestParameters``.
    """
    return words.filled(
        """\
        Create$type:
          Type: Api
          Properties:
            RestApiId: !Ref Api
            Method: POST
            Path: $path
            RequestParameters: $parameters
            RequestModel:
              Model: ${type}Request
              Required: true
              ValidateBody: true
              ValidateParameters: true
        Get$type:
          Type: Api
          Properties:
            RestApiId: !Ref Api
            Method: GET
            Path: $path/{id}
        """,
        parameters=parameters,
    )


def rights(words: Words) -> str:
    """Where template.yaml waits for the rights of the steps."""
    listed = words.filled(
        """\
        # What the steps of src/provisioning/$plural.py call, such as:
        # - Effect: Allow
        #   Action: [sns:CreateTopic, sns:DeleteTopic]
        #   Resource: !Sub arn:$${AWS::Partition}:sns:$${AWS::Region}:$${AWS::AccountId}:$kind-*
        """
    )
    return indent(listed, "  ")


def paths(words: Words) -> str:
    """The entries of openapi.yaml under its paths; `make contract` adds the responses that all operations have."""
    return words.filled(
        """

        $path:
          post:
            operationId: create_$singular
            tags: [$plural]
            summary: Create $article $words
            parameters:
              - $$ref: "#/components/parameters/IdempotencyKey"
              - $$ref: "#/components/parameters/Prefer"
            requestBody:
              required: true
              content:
                application/json:
                  schema: {$$ref: "#/components/schemas/${type}Request"}
                  examples:
                    $singular: {value: {name: News}}
            responses:
              "201":
                description: The $words is created. A replay has the same status, headers and bytes.
                headers:
                  Location: {$$ref: "#/components/headers/Location"}
                  Idempotent-Replayed: {$$ref: "#/components/headers/Idempotent-Replayed"}
                  Preference-Applied: {$$ref: "#/components/headers/Preference-Applied"}
                content:
                  application/json:
                    schema: {$$ref: "#/components/schemas/$type"}
                    examples:
                      created: {$$ref: "#/components/examples/Created$type"}

        $path/{id}:
          get:
            operationId: get_$singular
            tags: [$plural]
            summary: Show $article $words of yours
            parameters:
              - $$ref: "#/components/parameters/${type}Id"
            responses:
              "200":
                description: The $words.
                content:
                  application/json:
                    schema: {$$ref: "#/components/schemas/$type"}
                    examples:
                      created: {$$ref: "#/components/examples/Created$type"}
        """
    )


def parameter(words: Words) -> str:
    """The entry of openapi.yaml under its parameters."""
    return words.filled(
        """\
        ${type}Id:
          name: id
          in: path
          required: true
          schema: {type: string}
          examples:
            $singular: {value: $id}
        """,
        id=words.example["id"],
    )


def schema(words: Words) -> str:
    """The entry of openapi.yaml under its schemas: what clients get."""
    return words.filled(
        """\
        $type:
          type: object
          required: [$required]
          properties:
            id: {type: string, pattern: "^$kind-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$$"}
            name: {type: string}
        """,
        required=", ".join(words.example),
    ) + "".join(f"    {step}: {{type: string}}\n" for step in words.steps)


def example(words: Words) -> str:
    """The entry of openapi.yaml under its examples."""
    members = "".join(f"    {name}: {value}\n" for name, value in words.example.items())
    return f"Created{words.type}:\n  value:\n{members}"


def event(words: Words) -> str:
    """An event of the gateway: events/PLURAL.json."""
    headers = {"Content-Type": "application/json", "Idempotency-Key": str(uuid5(NAMESPACE_URL, words.plural))}
    sent = {
        "resource": words.path,
        "path": words.path,
        "httpMethod": "POST",
        "headers": headers,
        "multiValueHeaders": {name: [value] for name, value in headers.items()},
        "queryStringParameters": None,
        "multiValueQueryStringParameters": None,
        "pathParameters": None,
        "stageVariables": None,
        "requestContext": {
            "accountId": "123456789012",
            "authorizer": {"principalId": "alice"},
            "httpMethod": "POST",
            "identity": {"sourceIp": "192.0.2.1"},
            "path": f"/dev{words.path}",
            "requestId": str(uuid5(NAMESPACE_URL, words.path)),
            "resourcePath": words.path,
            "stage": "dev",
        },
        "body": json.dumps({"name": "News"}),
        "isBase64Encoded": False,
    }
    return f"{json.dumps(sent, indent=2)}\n"


def tests(words: Words) -> str:
    """The tests: tests/unit/test_PLURAL.py."""
    steps = ", ".join(f'"{step}"' for step in words.steps)
    return words.filled(_TESTS, steps=f"({steps},)" if len(words.steps) == 1 else f"({steps})")


_TESTS = '''\
    """One $words is created, whatever crashes; and if a step is refused for good, those before it are undone."""

    import json
    from collections.abc import Iterator

    import pytest

    import api
    from idempotency import Rejected
    from idempotency.testing import Story, crash_everywhere
    from provisioning import $plural
    from tests.clocks import SetClock
    from tests.events import Context
    from tests.unit.service import Api
    from tools.setup import ROOT

    EVENT = json.loads((ROOT / "events" / "$plural.json").read_text())
    STEPS = $steps


    class Services:
        """Stand in for the services that the steps will call: each makes one thing for each key.

        Attributes:
            made: the keys of the things that there are, by step.
            refuses: the step that is refused for good; empty for none.
        """

        def __init__(self) -> None:
            self.made: dict[str, set[str]] = {step: set() for step in STEPS}
            self.refuses = ""

        def do(self, step: str, key: str) -> str:
            if step == self.refuses:
                raise Rejected("refused", "Never.", status=422)
            self.made[step].add(key)
            return key


    @pytest.fixture
    def services(monkeypatch: pytest.MonkeyPatch) -> Services:
        services = Services()
        for step in STEPS:
            monkeypatch.setattr($plural, f"do_{step}", lambda _, key, step=step: services.do(step, key))
            monkeypatch.setattr($plural, f"undo_{step}", lambda key, step=step: services.made[step].discard(key))
        return services


    def stories(service: Api, services: Services, clock: SetClock) -> Iterator[Story]:
        """Run the operation once for each thing that may go wrong."""

        def begin() -> None:
            service.empty()
            for made in services.made.values():
                made.clear()

        return crash_everywhere(
            post=lambda: api.handler(EVENT, Context()),
            recover=service.recover,
            client=api.dynamodb,
            begin=begin,
            clock=clock,
        )


    def test_creates_one_whatever_crashes(service: Api, services: Services, clock: SetClock) -> None:
        for story in stories(service, services, clock):
            assert story.status == 201
            assert [row["resource"] for row in service.rows] == [story.json]
            assert [len(services.made[step]) for step in STEPS] == [1] * len(STEPS)


    @pytest.mark.parametrize("step", STEPS)
    def test_leaves_nothing_if_a_step_is_refused_whatever_crashes(
        service: Api, services: Services, clock: SetClock, step: str
    ) -> None:
        services.refuses = step

        for story in stories(service, services, clock):
            assert story.status == 422
            assert service.rows == []
            assert [services.made[step] for step in STEPS] == [set()] * len(STEPS)


    def test_shows_it_to_whoever_created_it(service: Api, services: Services) -> None:
        created = service.call(EVENT)
        path = f"$path/{created.json['id']}"

        assert service.get(path, resource="$path/{id}").json == created.json
        assert service.get(path, resource="$path/{id}", principal="bob").status == 404
    '''
