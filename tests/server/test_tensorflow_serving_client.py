"""The official client's types of TensorFlow Serving, sent by REST as its documentation describes."""

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import json_format

from support.serving import IMAGES, PREDICT, served

predict_pb2 = pytest.importorskip("tensorflow_serving.apis.predict_pb2", reason="needs tensorflow-serving-api")


def test_a_request_of_the_clients_types_is_answered(plain):
    request = predict_pb2.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = "mine", "serving_default"
    request.inputs["images"].CopyFrom(tf.make_tensor_proto(IMAGES))
    sent = predict_pb2.PredictRequest.FromString(request.SerializeToString())
    body = {
        "signature_name": sent.model_spec.signature_name,
        "inputs": {name: tf.make_ndarray(tensor).tolist() for name, tensor in sent.inputs.items()},
    }
    with served(plain) as client:
        outputs = client.post(PREDICT, json=body).json()["outputs"]
        described = client.get("/v1/models/mine/metadata").json()["metadata"]["signature_def"]["signature_def"]
        status = client.get("/v1/models/mine").json()
    response = predict_pb2.PredictResponse()
    for name, values in outputs.items():
        response.outputs[name].CopyFrom(tf.make_tensor_proto(np.array(values)))
    loaded = tf.saved_model.load(str(plain / "saved_model"))
    wanted = loaded.signatures["serving_default"](images=tf.constant(IMAGES))
    assert set(response.outputs) == set(wanted)
    for name, tensor in response.outputs.items():
        np.testing.assert_allclose(tf.make_ndarray(tensor), wanted[name], atol=1e-5)
    # What the server says of itself are the client's types, too, with no field that they do not know.
    from tensorflow.core.protobuf import meta_graph_pb2
    from tensorflow_serving.apis import get_model_status_pb2

    for signature in described.values():
        parsed = json_format.ParseDict(signature, meta_graph_pb2.SignatureDef())
        assert parsed.inputs["images"].tensor_shape.dim[0].size == -1
    parsed = json_format.ParseDict(status, get_model_status_pb2.GetModelStatusResponse())
    assert parsed.model_version_status[0].state == get_model_status_pb2.ModelVersionStatus.AVAILABLE
