"""Holds answers of an API against its OpenAPI document.

    answers.py DOCUMENT ANSWERS

ANSWERS is a list of objects with `route` (such as `GET /runs/{id}`), `status` and `body`. An answer has to be as the
schema of its route says, and to have nothing that the schema does not name.
"""

import json
import sys

import jsonschema


def closed(schema):
    """The schema, where objects have no other keys than those that it names."""
    if isinstance(schema, list):
        return [closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    schema = {key: closed(part) for key, part in schema.items()}
    if isinstance(schema.get("properties"), dict) and "additionalProperties" not in schema:
        schema["additionalProperties"] = False
    return schema


def problems(document, components, answer):
    method, path = answer["route"].split(" ")
    responses = document["paths"][path][method.lower()]["responses"]
    response = responses.get(str(answer["status"])) or responses.get("default")
    if response is None:
        return [f"status {answer['status']} is not described"]
    if "$ref" in response:
        response = document["components"]["responses"][response["$ref"].rsplit("/", 1)[1]]
    content = response.get("content", {}).get("application/json")
    if content is None:
        return ["its body is not described"]
    schema = {**closed(content["schema"]), "components": components}
    found = jsonschema.Draft202012Validator(schema).iter_errors(answer["body"])
    return [f"{error.json_path}: {error.message}" for error in found]


def main(document, answers):
    with open(document) as file:
        document = json.load(file)
    with open(answers) as file:
        answers = json.load(file)
    components = closed(document["components"])
    wrong = [(answer["route"], answer["status"], problem) for answer in answers for problem in problems(document, components, answer)]
    for route, status, problem in sorted(set(wrong)):
        print(f"{route}, {status}: {problem}")
    sys.exit(1 if wrong else 0)


main(*sys.argv[1:])
