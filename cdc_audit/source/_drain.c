/* Optional: the innermost loop of source/copyboth.py, in C. Built by `make native`; without it nothing is missing but speed.
 * See the PostgreSQL manual, "Streaming Replication Protocol": XLogData is 'w', three Int64s, and the plugin's message.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <string.h>

#define HEADER_LENGTH 25

/* libpq's functions, at the addresses that Python has found; see its manual, "Functions Associated with the COPY Command". */
typedef struct {
    void *connection;
    int (*get_copy_data)(void *connection, char **buffer, int asynchronous);
    void (*free_memory)(void *buffer);
} Libpq;

/* Read (connection, PQgetCopyData, PQfreemem); -1 with an error. */
static int read_libpq(PyObject *addresses, Libpq *libpq)
{
    void *read[3];
    if (!PyTuple_CheckExact(addresses) || PyTuple_GET_SIZE(addresses) != 3) {
        PyErr_SetString(PyExc_TypeError, "libpq is None or three addresses");
        return -1;
    }
    for (int i = 0; i < 3; i++)
        if ((read[i] = PyLong_AsVoidPtr(PyTuple_GET_ITEM(addresses, i))) == NULL) {
            if (!PyErr_Occurred())
                PyErr_SetString(PyExc_ValueError, "an address is 0");
            return -1;
        }
    libpq->connection = read[0];
    memcpy(&libpq->get_copy_data, &read[1], sizeof read[1]);
    memcpy(&libpq->free_memory, &read[2], sizeof read[2]);
    return 0;
}

/* What was taken so far, and the last message's header. */
typedef struct {
    PyObject *items;
    Py_ssize_t size;
    char header[HEADER_LENGTH];
} Taken;

/* 1: it was an XLogData message, and what it holds is appended; 0: it wasn't; -1: an error. */
static int take(Taken *taken, const char *message, Py_ssize_t length)
{
    if (length < HEADER_LENGTH || *message != 'w')
        return 0;
    PyObject *held = PyBytes_FromStringAndSize(message + HEADER_LENGTH, length - HEADER_LENGTH);
    int status = held == NULL ? -1 : PyList_Append(taken->items, held);
    Py_XDECREF(held);
    memcpy(taken->header, message, HEADER_LENGTH);
    taken->size += length;
    return status < 0 ? -1 : 1;
}

/* The four of what drain_past_psycopg() returns; steals `length` and `data`, which may be NULL with an error. */
static PyObject *result(const Taken *taken, PyObject *length, PyObject *data)
{
    PyObject *made = NULL;
    if (length != NULL && data != NULL)
        made = Py_BuildValue("OOny#", length, data, taken->size, taken->header, (Py_ssize_t)(taken->size ? HEADER_LENGTH : 0));
    Py_XDECREF(length);
    Py_XDECREF(data);
    return made;
}

/* Take what psycopg's get_copy_data gives. 1: a message was taken; 0: `ends` is what is to be returned, NULL with an error. */
static int take_from_psycopg(Taken *taken, PyObject *get_copy_data, PyObject **ends)
{
    *ends = NULL;
    PyObject *one = PyLong_FromLong(1), *got = one == NULL ? NULL : PyObject_CallOneArg(get_copy_data, one);
    Py_XDECREF(one);
    if (got == NULL)
        return 0;
    int status = -1;
    if (PyTuple_Check(got) && PyTuple_GET_SIZE(got) == 2) {
        Py_ssize_t length = PyLong_AsSsize_t(PyTuple_GET_ITEM(got, 0));
        Py_buffer view;
        if (length < HEADER_LENGTH)
            status = length == -1 && PyErr_Occurred() ? -1 : 0;
        else if (PyObject_GetBuffer(PyTuple_GET_ITEM(got, 1), &view, PyBUF_SIMPLE) == 0) {
            status = take(taken, view.buf, view.len);
            PyBuffer_Release(&view);
        }
        if (status == 0)
            *ends = result(taken, Py_NewRef(PyTuple_GET_ITEM(got, 0)), Py_NewRef(PyTuple_GET_ITEM(got, 1)));
    } else
        PyErr_SetString(PyExc_TypeError, "get_copy_data returns a length and data");
    Py_DECREF(got);
    return status > 0;
}

/* The same, past psycopg: it makes four objects of each message. An error is psycopg's to tell. */
static int take_from_libpq(Taken *taken, const Libpq *libpq, PyObject *get_copy_data, PyObject **ends)
{
    char *message = NULL;
    int length = libpq->get_copy_data(libpq->connection, &message, 1);
    *ends = NULL;
    if (length < -1)
        return take_from_psycopg(taken, get_copy_data, ends);
    int status = length > 0 ? take(taken, message, length) : 0;
    if (status == 0)
        *ends = result(taken, PyLong_FromLong(length), PyBytes_FromStringAndSize(message, length > 0 ? length : 0));
    if (message != NULL)
        libpq->free_memory(message);
    return status > 0;
}

PyDoc_STRVAR(drain_doc, "drain_past_psycopg(get_copy_data, items, room, libpq) -> (length, data, size, header)\n\n"
"Call ``get_copy_data(1)`` and append what XLogData messages hold to ``items``, until they are ``room`` bytes or something else comes:\n"
"its ``length`` and ``data`` are returned (length 0: nothing has arrived; None, None: there is no more room). ``size`` is the bytes\n"
"of the messages taken, ``header`` the last one's header, b\"\" if there was none. Raises what ``get_copy_data`` raises. ``libpq``, if not\n"
"None, is (PGconn, PQgetCopyData, PQfreemem), the addresses of that same connection and of what ``get_copy_data`` calls: then it is\n"
"called past psycopg.");

static PyObject *drain(PyObject *module, PyObject *const *arguments, Py_ssize_t given)
{
    if (given != 4 || !PyList_CheckExact(arguments[1])) {
        PyErr_SetString(PyExc_TypeError, "drain_past_psycopg(get_copy_data, list, int, libpq)");
        return NULL;
    }
    Taken taken = {arguments[1], 0, {0}};
    Libpq libpq = {0};
    Py_ssize_t room = PyLong_AsSsize_t(arguments[2]);
    if ((room == -1 && PyErr_Occurred()) || (arguments[3] != Py_None && read_libpq(arguments[3], &libpq) < 0))
        return NULL;
    PyObject *ends;
    while (taken.size < room) {
        int is_taken = arguments[3] == Py_None ? take_from_psycopg(&taken, arguments[0], &ends)
                                               : take_from_libpq(&taken, &libpq, arguments[0], &ends);
        if (!is_taken)
            return ends;
    }
    return result(&taken, Py_NewRef(Py_None), Py_NewRef(Py_None));
}

static PyMethodDef methods[] = {
    {"drain_past_psycopg", (PyCFunction)(void (*)(void))drain, METH_FASTCALL, drain_doc},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_drain", "The stream's innermost loop, in C.", -1, methods};

PyMODINIT_FUNC PyInit__drain(void)
{
    return PyModule_Create(&definition);
}
