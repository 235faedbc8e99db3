/* Optional: what decode/relation.py does with the usual rows, in C. Built by `make native`; without it nothing is missing but speed.
 * It reads rows of the tables that it is given, and stops at any message that is something else, is not built as it should be,
 * or holds a value that its converter refuses: that one is Python's. What it returns equals what Python returns
 * (tests/unit/decode/test_native.py). See the PostgreSQL manual, "Logical Replication Message Formats".
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <string.h>

#define MAX_COLUMNS 1664

/* Positions in decode.relation.Plain. */
enum { WIDTH, CONVERTERS, IDENTITY, INSERTED, UPDATED, UPDATED_BY_KEY, DELETED, DELETED_BY_KEY, PLAIN_LENGTH };

/* The Python converters that are done here, too; set by init_converters(). */
static PyObject *string_of, *jsonb_of, *numeric_of, *timestamp_of, *timestamptz_of;
static PyObject *null_token;

typedef struct {
    const unsigned char *at, *end;
} Reader;

/* A row's values: owned, NULL where the value did not change and was not sent. */
typedef struct {
    Py_ssize_t count;
    PyObject *values[MAX_COLUMNS];
} Row;

static void drop(Row *row)
{
    for (Py_ssize_t i = 0; i < row->count; i++)
        Py_XDECREF(row->values[i]);
    row->count = 0;
}

/* A TupleData of `width` columns. Returns whether it is one; `may_lack` says that values may be left out. */
static int read_row(Reader *from, Py_ssize_t width, int may_lack, Row *row)
{
    row->count = 0;
    if (from->end - from->at < 2 || (from->at[0] << 8 | from->at[1]) != width)
        return 0;
    from->at += 2;
    while (row->count < width) {
        if (from->at >= from->end)
            return 0;
        PyObject *value;
        unsigned char kind = *from->at++;
        if (kind == 't') {
            if (from->end - from->at < 4)
                return 0;
            uint32_t length = (uint32_t)from->at[0] << 24 | from->at[1] << 16 | from->at[2] << 8 | from->at[3];
            from->at += 4;
            if ((size_t)(from->end - from->at) < length)
                return 0;
            value = PyBytes_FromStringAndSize((const char *)from->at, length);
            if (value == NULL)
                return 0;
            from->at += length;
        } else if (kind == 'n') {
            value = Py_NewRef(null_token);
        } else if (kind == 'u' && may_lack) {
            value = NULL;
        } else {
            return 0;
        }
        row->values[row->count++] = value;
    }
    return 1;
}

/* Whether the bytes are UTF-8; -1 if they are all ASCII. */
static int is_utf_8(const char *text, Py_ssize_t length)
{
    uint64_t high = 0, word;
    Py_ssize_t i = 0;
    for (; i + 8 <= length; i += 8) {
        memcpy(&word, text + i, 8);
        high |= word;
    }
    for (; i < length; i++)
        high |= (uint64_t)(unsigned char)text[i];
    if (!(high & UINT64_C(0x8080808080808080)))
        return -1;
    PyObject *decoded = PyUnicode_DecodeUTF8(text, length, NULL);
    Py_XDECREF(decoded);
    return decoded != NULL;
}

/* A JSON string of a text, as orjson writes it; NULL with or without an error where that is Python's. */
static PyObject *from_string(const char *text, Py_ssize_t length)
{
    static const char hexadecimal[] = "0123456789abcdef";
    if (!is_utf_8(text, length))
        return NULL;
    Py_ssize_t more = 2;
    for (Py_ssize_t i = 0; i < length; i++) {
        unsigned char byte = text[i];
        if (byte == 0)
            return NULL; /* jsonb holds no NUL */
        if (byte == '"' || byte == '\\')
            more += 1;
        else if (byte < 0x20)
            more += 5;
    }
    PyObject *made = PyBytes_FromStringAndSize(NULL, length + more);
    if (made == NULL)
        return NULL;
    char *out = PyBytes_AS_STRING(made);
    *out++ = '"';
    if (more == 2) {
        memcpy(out, text, length);
        out += length;
    } else {
        for (Py_ssize_t i = 0; i < length; i++) {
            unsigned char byte = text[i];
            if (byte == '"' || byte == '\\') {
                *out++ = '\\';
                *out++ = byte;
            } else if (byte >= 0x20) {
                *out++ = byte;
            } else {
                *out++ = '\\';
                switch (byte) {
                case '\b': *out++ = 'b'; break;
                case '\t': *out++ = 't'; break;
                case '\n': *out++ = 'n'; break;
                case '\f': *out++ = 'f'; break;
                case '\r': *out++ = 'r'; break;
                default:
                    memcpy(out, "u00", 3);
                    out[3] = hexadecimal[byte >> 4];
                    out[4] = hexadecimal[byte & 15];
                    out += 5;
                }
            }
        }
    }
    *out++ = '"';
    Py_ssize_t written = out - PyBytes_AS_STRING(made);
    if (written != length + more)
        _PyBytes_Resize(&made, written);
    return made;
}

/* 2026-11-28 09:28:58+00 becomes "2026-11-28T09:28:58+00:00" if `has_offset`, else without the offset's minutes. */
static PyObject *from_timestamp(const char *text, Py_ssize_t length, int has_offset)
{
    if (has_offset && (length < 3 || memcmp(text + length - 3, "+00", 3) != 0))
        return NULL;
    Py_ssize_t more = has_offset ? 5 : 2;
    PyObject *made = PyBytes_FromStringAndSize(NULL, length + more);
    if (made == NULL)
        return NULL;
    char *out = PyBytes_AS_STRING(made);
    out[0] = '"';
    memcpy(out + 1, text, length);
    char *blank = memchr(out + 1, ' ', length);
    if (blank != NULL)
        *blank = 'T';
    memcpy(out + 1 + length, has_offset ? ":00\"" : "\"", more - 1);
    return made;
}

/* A new reference, or NULL with or without an error: then the message is Python's. */
static PyObject *converted(PyObject *convert, PyObject *raw)
{
    const char *text = PyBytes_AS_STRING(raw);
    Py_ssize_t length = PyBytes_GET_SIZE(raw);
    PyObject *made = NULL;
    if (convert == string_of)
        made = from_string(text, length);
    else if (convert == timestamptz_of)
        made = from_timestamp(text, length, 1);
    else if (convert == timestamp_of)
        made = from_timestamp(text, length, 0);
    else if (convert == jsonb_of)
        made = is_utf_8(text, length) ? Py_NewRef(raw) : NULL;
    else if (convert == numeric_of)
        made = length && text[length - 1] >= '0' && text[length - 1] <= '9' ? Py_NewRef(raw) : NULL;
    if (made == NULL && !PyErr_Occurred())
        made = PyObject_CallOneArg(convert, raw);
    if (made != NULL && !PyBytes_CheckExact(made))
        Py_CLEAR(made);
    return made;
}

/* Convert the values of a row; where `other`, not converted yet, has the same one, it is done once. Returns whether all could be. */
static int convert(PyObject *converters, Row *row, Row *other)
{
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(converters); i++) {
        PyObject *one = PyTuple_GET_ITEM(converters, i), *how = PyTuple_GET_ITEM(one, 1);
        Py_ssize_t at = PyLong_AsSsize_t(PyTuple_GET_ITEM(one, 0));
        if (at < 0 || at >= row->count || (other != NULL && at >= other->count))
            return 0;
        PyObject *raw = row->values[at], *same = other == NULL ? NULL : other->values[at];
        int is_same = same != NULL && same != null_token && raw != null_token &&
                      (same == raw || (PyBytes_GET_SIZE(same) == PyBytes_GET_SIZE(raw) &&
                                       memcmp(PyBytes_AS_STRING(same), PyBytes_AS_STRING(raw), PyBytes_GET_SIZE(raw)) == 0));
        if (raw != null_token) {
            PyObject *made = converted(how, raw);
            if (made == NULL)
                return 0;
            Py_SETREF(row->values[at], made);
        }
        if (same != NULL && same != null_token) {
            PyObject *made = is_same ? Py_NewRef(row->values[at]) : converted(how, same);
            if (made == NULL)
                return 0;
            Py_SETREF(other->values[at], made);
        }
    }
    return 1;
}

static PyObject *list_of(const Row *row)
{
    PyObject *list = PyList_New(row->count);
    for (Py_ssize_t i = 0; list != NULL && i < row->count; i++)
        PyList_SET_ITEM(list, i, Py_NewRef(row->values[i]));
    return list;
}

/* The values of the replica identity's columns. */
static PyObject *key_of(PyObject *identity, const Row *row)
{
    Py_ssize_t count = PyTuple_GET_SIZE(identity);
    PyObject *list = PyList_New(count);
    for (Py_ssize_t i = 0; list != NULL && i < count; i++) {
        Py_ssize_t at = PyLong_AsSsize_t(PyTuple_GET_ITEM(identity, i));
        if (at < 0 || at >= row->count)
            Py_CLEAR(list);
        else
            PyList_SET_ITEM(list, i, Py_NewRef(row->values[at]));
    }
    return list;
}

/* (shape, new, old); takes over both lists. NULL without either of them. */
static PyObject *event(PyObject *shape, PyObject *new, PyObject *old)
{
    PyObject *made = new == NULL || old == NULL ? NULL : PyTuple_Pack(3, shape, new, old);
    Py_XDECREF(new);
    Py_XDECREF(old);
    return made;
}

/* The event of an Insert, Update or Delete message, or NULL with or without an error: then it is Python's. */
static PyObject *event_of(unsigned char kind, Reader from, PyObject *plain, Row *new, Row *old)
{
    Py_ssize_t width = PyLong_AsSsize_t(PyTuple_GET_ITEM(plain, WIDTH));
    PyObject *converters = PyTuple_GET_ITEM(plain, CONVERTERS), *identity = PyTuple_GET_ITEM(plain, IDENTITY);
    if (width < 0 || width > MAX_COLUMNS || from.at >= from.end)
        return NULL;
    unsigned char part = *from.at++;
    int has_old = kind != 'I' && (part == 'O' || part == 'K');
    if (has_old && !read_row(&from, width, 0, old))
        return NULL;
    if (kind == 'D') {
        if (!has_old || from.at != from.end || !convert(converters, old, NULL))
            return NULL;
        return part == 'O' ? event(PyTuple_GET_ITEM(plain, DELETED), PyList_New(0), list_of(old))
                           : event(PyTuple_GET_ITEM(plain, DELETED_BY_KEY), PyList_New(0), key_of(identity, old));
    }
    if (has_old && from.at >= from.end)
        return NULL;
    if ((has_old ? *from.at++ : part) != 'N' || !read_row(&from, width, part == 'O', new) || from.at != from.end)
        return NULL;
    if (part == 'O')
        for (Py_ssize_t i = 0; i < width; i++)
            if (new->values[i] == NULL)
                new->values[i] = Py_NewRef(old->values[i]);
    if (!convert(converters, new, has_old ? old : NULL))
        return NULL;
    if (kind == 'I')
        return event(PyTuple_GET_ITEM(plain, INSERTED), list_of(new), PyList_New(0));
    return part == 'O' ? event(PyTuple_GET_ITEM(plain, UPDATED), list_of(new), list_of(old))
                       : event(PyTuple_GET_ITEM(plain, UPDATED_BY_KEY), list_of(new), key_of(identity, has_old ? old : new));
}

/* Append to a list that is made with its first item. */
static int append(PyObject **list, PyObject *item)
{
    if (*list == NULL && (*list = PyList_New(0)) == NULL)
        return -1;
    return PyList_Append(*list, item);
}

PyDoc_STRVAR(rows_doc, "rows(items, position, plain, events) -> position\n\n"
"Append a list of the rows from ``position`` on, and return the position of the first item that is not a row of a table in\n"
"``plain`` (its oid's four bytes -> decode.relation.Plain), or that Python must look at for another reason. ``items`` is a list of\n"
"messages and other objects. Raises only MemoryError.");

static PyObject *rows(PyObject *module, PyObject *const *arguments, Py_ssize_t given)
{
    if (given != 4 || !PyList_CheckExact(arguments[0]) || !PyDict_CheckExact(arguments[2]) || !PyList_CheckExact(arguments[3])) {
        PyErr_SetString(PyExc_TypeError, "rows(list, int, dict, list)");
        return NULL;
    }
    PyObject *items = arguments[0], *tables = arguments[2], *events = arguments[3];
    PyObject *plain = NULL, *run = NULL; /* owned */
    Py_ssize_t position = PyLong_AsSsize_t(arguments[1]);
    if (position < 0)
        return PyErr_Occurred() ? NULL : (PyErr_SetString(PyExc_IndexError, "position"), NULL);
    char oid[4] = {0};
    Row *both = PyMem_Malloc(2 * sizeof *both);
    if (both == NULL)
        return PyErr_NoMemory();
    both[0].count = both[1].count = 0;
    for (; position < PyList_GET_SIZE(items); position++) {
        PyObject *item = PyList_GET_ITEM(items, position);
        if (!PyBytes_CheckExact(item) || PyBytes_GET_SIZE(item) < 8)
            break;
        const char *payload = PyBytes_AS_STRING(item);
        if (payload[0] != 'I' && payload[0] != 'U' && payload[0] != 'D')
            break;
        if (plain == NULL || memcmp(oid, payload + 1, sizeof oid) != 0) {
            PyObject *key = PyBytes_FromStringAndSize(payload + 1, sizeof oid);
            PyObject *found = key == NULL ? NULL : PyDict_GetItemWithError(tables, key);
            Py_XDECREF(key);
            if (found == NULL || !PyTuple_Check(found) || PyTuple_GET_SIZE(found) != PLAIN_LENGTH)
                break;
            Py_XSETREF(plain, Py_NewRef(found));
            memcpy(oid, payload + 1, sizeof oid);
        }
        Reader from = {(const unsigned char *)payload + 5, (const unsigned char *)payload + PyBytes_GET_SIZE(item)};
        PyObject *made = event_of(payload[0], from, plain, &both[0], &both[1]);
        drop(&both[0]);
        drop(&both[1]);
        int status = made == NULL ? -1 : append(&run, made);
        Py_XDECREF(made);
        if (status < 0)
            break;
    }
    Py_XDECREF(plain);
    PyMem_Free(both);
    if (PyErr_Occurred() && !PyErr_ExceptionMatches(PyExc_MemoryError))
        PyErr_Clear(); /* Python meets it again on the same message, and tells it in its words */
    int failed = PyErr_Occurred() || (run != NULL && PyList_Append(events, run) < 0);
    Py_XDECREF(run);
    return failed ? NULL : PyLong_FromSsize_t(position);
}

PyDoc_STRVAR(init_converters_doc, "init_converters(string, jsonb, numeric, timestamp, timestamptz, null)\n\n"
"Name the converters of ``decode.sent_values`` that are done here where a value is as usual, and the bytes that stand for null.");

static PyObject *init_converters(PyObject *module, PyObject *const *arguments, Py_ssize_t given)
{
    if (given != 6) {
        PyErr_SetString(PyExc_TypeError, "init_converters(string, jsonb, numeric, timestamp, timestamptz, null)");
        return NULL;
    }
    PyObject **names[] = {&string_of, &jsonb_of, &numeric_of, &timestamp_of, &timestamptz_of, &null_token};
    for (Py_ssize_t i = 0; i < given; i++)
        Py_XSETREF(*names[i], Py_NewRef(arguments[i]));
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"rows", (PyCFunction)(void (*)(void))rows, METH_FASTCALL, rows_doc},
    {"init_converters", (PyCFunction)(void (*)(void))init_converters, METH_FASTCALL, init_converters_doc},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_pgoutput", "Rows of pgoutput messages, in C.", -1, methods};

PyMODINIT_FUNC PyInit__pgoutput(void)
{
    return PyModule_Create(&definition);
}
