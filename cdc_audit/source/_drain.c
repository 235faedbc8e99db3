/* Optional: the innermost loop of source/copyboth.py, in C. Built by `make native`; without it nothing is missing but speed.
 * See the PostgreSQL manual, "Streaming Replication Protocol": XLogData is 'w', three Int64s, and the plugin's message.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <string.h>

#define HEADER_LENGTH 25

PyDoc_STRVAR(drain_doc, "drain(get_copy_data, items, room) -> (length, data, size, header)\n\n"
"Call ``get_copy_data(1)`` and append what XLogData messages hold to ``items``, until they are ``room`` bytes or something else comes:\n"
"its ``length`` and ``data`` are returned (length 0: nothing has arrived; None, None: there is no more room). ``size`` is the bytes\n"
"of the messages taken, ``header`` the last one's header, b\"\" if there was none. Raises what ``get_copy_data`` raises.");

static PyObject *drain(PyObject *module, PyObject *const *arguments, Py_ssize_t given)
{
    if (given != 3 || !PyList_CheckExact(arguments[1])) {
        PyErr_SetString(PyExc_TypeError, "drain(get_copy_data, list, int)");
        return NULL;
    }
    PyObject *items = arguments[1], *one = PyLong_FromLong(1), *made = NULL;
    Py_ssize_t room = PyLong_AsSsize_t(arguments[2]), size = 0;
    char header[HEADER_LENGTH];
    if (one == NULL || (room == -1 && PyErr_Occurred()))
        goto done;
    while (size < room) {
        PyObject *got = PyObject_CallOneArg(arguments[0], one);
        if (got == NULL)
            goto done;
        if (!PyTuple_Check(got) || PyTuple_GET_SIZE(got) != 2) {
            Py_DECREF(got);
            PyErr_SetString(PyExc_TypeError, "get_copy_data returns a length and data");
            goto done;
        }
        PyObject *data = PyTuple_GET_ITEM(got, 1);
        Py_ssize_t length = PyLong_AsSsize_t(PyTuple_GET_ITEM(got, 0));
        Py_buffer view;
        if (length >= HEADER_LENGTH && PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) == 0) {
            int is_message = view.len >= HEADER_LENGTH && *(char *)view.buf == 'w', status = 0;
            if (is_message) {
                PyObject *message = PyBytes_FromStringAndSize((char *)view.buf + HEADER_LENGTH, view.len - HEADER_LENGTH);
                status = message == NULL ? -1 : PyList_Append(items, message);
                Py_XDECREF(message);
                memcpy(header, view.buf, HEADER_LENGTH);
                size += view.len;
            }
            PyBuffer_Release(&view);
            if (status == 0 && is_message) {
                Py_DECREF(got);
                continue;
            }
        }
        if (!PyErr_Occurred())
            made = Py_BuildValue("OOny#", PyTuple_GET_ITEM(got, 0), data, size, header, (Py_ssize_t)(size ? HEADER_LENGTH : 0));
        Py_DECREF(got);
        goto done;
    }
    made = Py_BuildValue("OOny#", Py_None, Py_None, size, header, (Py_ssize_t)(size ? HEADER_LENGTH : 0));
done:
    Py_XDECREF(one);
    return made;
}

static PyMethodDef methods[] = {
    {"drain", (PyCFunction)(void (*)(void))drain, METH_FASTCALL, drain_doc},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_drain", "The stream's innermost loop, in C.", -1, methods};

PyMODINIT_FUNC PyInit__drain(void)
{
    return PyModule_Create(&definition);
}
