/* Optional: what decode/wal2json.py does with the lines of rows, in C. Built by `make native`; without it nothing is missing but
 * speed. It reads only lines that have the very form of lines read before, and stops at any other, which is then Python's: so
 * it never decides what a strange line means. What it returns equals what Python returns (tests/unit/decode/test_native.py).
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <string.h>

#define VALUE ",\"value\":"
#define VALUE_LENGTH 9
#define SCHEMA "\"schema\":"
#define SCHEMA_LENGTH 9
#define ACTION_AT 11
#define MAX_VALUES 3300 /* old and new row of a table of 1,600 columns */

/* Positions in decode.form.Form. */
enum { TAILS, FIXED_LENGTH, SHAPE, CONVERTERS, NEW, OLD, TYPES, NEVER_NULL, FORM_LENGTH };

/* The Python converters that are done here, too; set by init_converters(). */
static PyObject *timestamptz_token, *timestamp_token, *jsonb_token;

static int is_null(PyObject *token)
{
    return PyBytes_GET_SIZE(token) == 4 && memcmp(PyBytes_AS_STRING(token), "null", 4) == 0;
}

/* The end of the JSON scalar that begins at `at`: a string, or anything of letters, digits, '_', '-', '+', '.'; NULL if none. */
static const char *scalar_end(const char *at, const char *end)
{
    if (at < end && *at == '"') {
        for (const char *from = at + 1; from < end;) {
            const char *quote = memchr(from, '"', end - from);
            if (quote == NULL)
                return NULL;
            const char *back = quote;
            while (back[-1] == '\\' && back - 1 > at)
                back--;
            if (((quote - back) & 1) == 0)
                return quote + 1;
            from = quote + 1;
        }
        return NULL;
    }
    const char *begin = at;
    while (at < end && ((*at >= '0' && *at <= '9') || (*at >= 'a' && *at <= 'z') || (*at >= 'A' && *at <= 'Z') || *at == '_' ||
                        *at == '-' || *at == '+' || *at == '.'))
        at++;
    return at > begin ? at : NULL;
}

/* "2026-11-28 09:28:58.36443+00" becomes "2026-11-28T09:28:58.36443+00:00"; NULL without an error for any other. */
static PyObject *from_timestamptz(PyObject *token)
{
    const char *text = PyBytes_AS_STRING(token);
    Py_ssize_t length = PyBytes_GET_SIZE(token);
    if (length < 6 || memcmp(text + length - 4, "+00\"", 4) != 0)
        return NULL;
    PyObject *made = PyBytes_FromStringAndSize(NULL, length + 3);
    if (made == NULL)
        return NULL;
    char *out = PyBytes_AS_STRING(made);
    memcpy(out, text, length - 1);
    memcpy(out + length - 1, ":00\"", 4);
    char *blank = memchr(out, ' ', length);
    if (blank != NULL)
        *blank = 'T';
    return made;
}

static PyObject *from_timestamp(PyObject *token)
{
    PyObject *made = PyBytes_FromStringAndSize(PyBytes_AS_STRING(token), PyBytes_GET_SIZE(token));
    if (made == NULL)
        return NULL;
    char *blank = memchr(PyBytes_AS_STRING(made), ' ', PyBytes_GET_SIZE(made));
    if (blank != NULL)
        *blank = 'T';
    return made;
}

/* The text of a JSON string; NULL without an error where it has \u escapes or isn't one. */
static PyObject *from_jsonb(PyObject *token)
{
    const char *text = PyBytes_AS_STRING(token);
    Py_ssize_t length = PyBytes_GET_SIZE(token);
    if (is_null(token))
        return Py_NewRef(token);
    if (length < 2 || text[0] != '"' || text[length - 1] != '"')
        return NULL;
    PyObject *made = PyBytes_FromStringAndSize(NULL, length - 2);
    if (made == NULL)
        return NULL;
    char *out = PyBytes_AS_STRING(made);
    const char *at = text + 1, *end = text + length - 1;
    while (at < end) {
        const char *next = memchr(at, '\\', end - at);
        Py_ssize_t plain = (next == NULL ? end : next) - at;
        int is_control = 0;
        for (Py_ssize_t i = 0; i < plain; i++)
            is_control |= (unsigned char)at[i] < 0x20;
        if (is_control) /* not JSON */
            goto other;
        memcpy(out, at, plain);
        out += plain;
        at += plain;
        if (next == NULL)
            break;
        if (at + 1 >= end)
            goto other;
        switch (at[1]) {
        case '"': case '\\': case '/': *out++ = at[1]; break;
        case 'b': *out++ = '\b'; break;
        case 'f': *out++ = '\f'; break;
        case 'n': *out++ = '\n'; break;
        case 'r': *out++ = '\r'; break;
        case 't': *out++ = '\t'; break;
        default: goto other;
        }
        at += 2;
    }
    _PyBytes_Resize(&made, out - PyBytes_AS_STRING(made));
    return made;
other:
    Py_DECREF(made);
    return NULL;
}

/* A new reference, or NULL with or without an error: then the line is Python's. */
static PyObject *converted(PyObject *convert, PyObject *token)
{
    PyObject *made = NULL;
    if (convert == timestamptz_token)
        made = from_timestamptz(token);
    else if (convert == jsonb_token)
        made = from_jsonb(token);
    else if (convert == timestamp_token)
        made = from_timestamp(token);
    if (made == NULL && !PyErr_Occurred())
        made = PyObject_CallOneArg(convert, token);
    if (made != NULL && !PyBytes_CheckExact(made))
        Py_CLEAR(made);
    return made;
}

/* How many values the new image of a form has; 0 if its columns are in another order. */
static Py_ssize_t new_count(PyObject *form)
{
    PyObject *new = PyTuple_GET_ITEM(form, NEW);
    return PySlice_Check(new) ? PyLong_AsSsize_t(((PySliceObject *)new)->stop) - 1 : 0;
}

/* The values of a line, from `at` on, into `values` (new references). Returns whether the line has the form to its end.
 * The values from `repeats` on (if not 0) mostly are the ones from the first on, again: the old row's. */
static int cut(const char *at, const char *end, PyObject *tails, PyObject **values, Py_ssize_t count, Py_ssize_t repeats)
{
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *tail = PyTuple_GET_ITEM(tails, i + 1);
        Py_ssize_t tail_length = PyBytes_GET_SIZE(tail);
        if (end - at < VALUE_LENGTH || memcmp(at, VALUE, VALUE_LENGTH) != 0)
            return 0;
        at += VALUE_LENGTH;
        const char *after = scalar_end(at, end);
        if (after == NULL || end - after < tail_length || memcmp(after, PyBytes_AS_STRING(tail), tail_length) != 0)
            return 0;
        PyObject *same = repeats > 0 && i >= repeats ? values[i - repeats] : NULL;
        if (same != NULL && PyBytes_GET_SIZE(same) == after - at && memcmp(PyBytes_AS_STRING(same), at, after - at) == 0)
            values[i] = Py_NewRef(same);
        else if ((values[i] = PyBytes_FromStringAndSize(at, after - at)) == NULL)
            return 0;
        at = after + tail_length;
    }
    return at == end;
}

/* Convert `values` (at positions 1, 2, ... of the form). Returns whether all could be. */
static int convert_all(PyObject *form, PyObject **values, Py_ssize_t count)
{
    PyObject *never_null = PyTuple_GET_ITEM(form, NEVER_NULL), *converters = PyTuple_GET_ITEM(form, CONVERTERS);
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(never_null); i++) {
        Py_ssize_t position = PyLong_AsSsize_t(PyTuple_GET_ITEM(never_null, i));
        if (position < 1 || position > count || is_null(values[position - 1]))
            return 0;
    }
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(converters); i++) {
        PyObject *one = PyTuple_GET_ITEM(converters, i), *convert = PyTuple_GET_ITEM(one, 2);
        Py_ssize_t position = PyLong_AsSsize_t(PyTuple_GET_ITEM(one, 0)), old = PyLong_AsSsize_t(PyTuple_GET_ITEM(one, 1));
        if (position < 1 || position > count || old < 0 || old > count)
            return 0;
        PyObject *token = values[position - 1], *made = converted(convert, token);
        if (made == NULL)
            return 0;
        values[position - 1] = made;
        if (old) {
            PyObject *before = values[old - 1], *old_made;
            Py_ssize_t length = PyBytes_GET_SIZE(token);
            if (PyBytes_GET_SIZE(before) == length && memcmp(PyBytes_AS_STRING(before), PyBytes_AS_STRING(token), length) == 0)
                old_made = Py_NewRef(made); /* mostly the column has not changed */
            else
                old_made = converted(convert, before);
            if (old_made == NULL) {
                Py_DECREF(token);
                return 0;
            }
            Py_SETREF(values[old - 1], old_made);
        }
        Py_DECREF(token);
    }
    return 1;
}

/* The values at a slice or list of positions of the form, as a new list. */
static PyObject *picked(PyObject *positions, PyObject **values, Py_ssize_t count)
{
    Py_ssize_t start = 1, length;
    if (PySlice_Check(positions)) {
        start = PyLong_AsSsize_t(((PySliceObject *)positions)->start);
        length = PyLong_AsSsize_t(((PySliceObject *)positions)->stop) - start;
        if (start < 1 || length < 0 || start - 1 + length > count)
            return NULL;
    } else if (PyList_CheckExact(positions)) {
        length = PyList_GET_SIZE(positions);
    } else {
        return NULL;
    }
    PyObject *made = PyList_New(length);
    for (Py_ssize_t i = 0; made != NULL && i < length; i++) {
        Py_ssize_t at = PySlice_Check(positions) ? start + i : PyLong_AsSsize_t(PyList_GET_ITEM(positions, i));
        if (at < 1 || at > count)
            Py_CLEAR(made);
        else
            PyList_SET_ITEM(made, i, Py_NewRef(values[at - 1]));
    }
    return made;
}

/* The row (shape, new, old) of a line whose values begin at `at`, None out of scope, or NULL, with or without an error. */
static PyObject *row_of(const char *at, const char *end, PyObject *form)
{
    PyObject *values[MAX_VALUES], *row = NULL;
    Py_ssize_t count = PyTuple_GET_SIZE(PyTuple_GET_ITEM(form, TAILS)) - 1;
    if (count < 1 || count > MAX_VALUES)
        return NULL;
    memset(values, 0, count * sizeof *values);
    PyObject *shape = PyTuple_GET_ITEM(form, SHAPE);
    if (!cut(at, end, PyTuple_GET_ITEM(form, TAILS), values, count, new_count(form)))
        goto done;
    if (shape == Py_None) {
        row = Py_NewRef(Py_None);
    } else if (convert_all(form, values, count)) {
        PyObject *new = picked(PyTuple_GET_ITEM(form, NEW), values, count);
        PyObject *old = new == NULL ? NULL : picked(PyTuple_GET_ITEM(form, OLD), values, count);
        if (old != NULL)
            row = PyTuple_Pack(3, shape, new, old);
        Py_XDECREF(new);
        Py_XDECREF(old);
    }
done:
    for (Py_ssize_t i = 0; i < count; i++)
        Py_XDECREF(values[i]);
    return row;
}

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
        return 1;
    PyObject *decoded = PyUnicode_DecodeUTF8(text, length, NULL);
    Py_XDECREF(decoded);
    return decoded != NULL;
}

/* Append to a list that is made with its first item. */
static int append(PyObject **list, PyObject *item)
{
    if (*list == NULL && (*list = PyList_New(0)) == NULL)
        return -1;
    return PyList_Append(*list, item);
}

PyDoc_STRVAR(rows_doc, "rows(items, position, forms, events) -> position\n\n"
"Append a list of the rows from ``position`` on, unless none is in scope, and return the position of the first item that is not\n"
"the line of a row whose form is in ``forms`` (Wal2JsonDecoder._recent), or that Python must look at for another reason.\n"
"``items`` is a list of lines in UTF-8 and other objects. Raises only MemoryError.");

static PyObject *rows(PyObject *module, PyObject *const *arguments, Py_ssize_t given)
{
    if (given != 4 || !PyList_CheckExact(arguments[0]) || !PyDict_CheckExact(arguments[2]) || !PyList_CheckExact(arguments[3])) {
        PyErr_SetString(PyExc_TypeError, "rows(list, int, dict, list)");
        return NULL;
    }
    PyObject *items = arguments[0], *forms = arguments[2], *events = arguments[3];
    Py_ssize_t position = PyLong_AsSsize_t(arguments[1]);
    PyObject *key = NULL, *form = NULL; /* of the row before; both owned */
    PyObject *run = NULL;
    if (position < 0)
        return PyErr_Occurred() ? NULL : (PyErr_SetString(PyExc_IndexError, "position"), NULL);
    for (; position < PyList_GET_SIZE(items); position++) {
        PyObject *item = PyList_GET_ITEM(items, position);
        if (!PyBytes_CheckExact(item))
            break;
        const char *line = PyBytes_AS_STRING(item), *end = line + PyBytes_GET_SIZE(item);
        if (end - line < 32 || (line[ACTION_AT] != 'I' && line[ACTION_AT] != 'U' && line[ACTION_AT] != 'D'))
            break;
        const char *schema = memmem(line + ACTION_AT, end - line - ACTION_AT, SCHEMA, SCHEMA_LENGTH);
        if (schema == NULL || !is_utf_8(line, end - line))
            break;
        const char *first = NULL; /* the first value's name */
        if (key != NULL) {
            Py_ssize_t length = PyBytes_GET_SIZE(key) - 1;
            const char *text = PyBytes_AS_STRING(key);
            if (text[0] == line[ACTION_AT] && end - schema > length + VALUE_LENGTH && memcmp(schema, text + 1, length) == 0 &&
                memcmp(schema + length, VALUE, VALUE_LENGTH) == 0)
                first = schema + length;
        }
        if (first == NULL) {
            first = memmem(line, end - line, VALUE, VALUE_LENGTH);
            if (first == NULL || first < schema)
                break;
            PyObject *made = PyBytes_FromStringAndSize(NULL, 1 + (first - schema));
            if (made == NULL)
                break;
            PyBytes_AS_STRING(made)[0] = line[ACTION_AT];
            memcpy(PyBytes_AS_STRING(made) + 1, schema, first - schema);
            Py_XSETREF(key, made);
            PyObject *found = PyDict_GetItemWithError(forms, key);
            if (found == NULL || !PyTuple_Check(found) || PyTuple_GET_SIZE(found) < FORM_LENGTH)
                break;
            Py_XSETREF(form, Py_NewRef(found));
        }
        PyObject *row = row_of(first, end, form);
        int status = row == NULL ? -1 : row == Py_None ? 0 : append(&run, row);
        Py_XDECREF(row);
        if (status < 0)
            break;
    }
    if (PyErr_Occurred() && !PyErr_ExceptionMatches(PyExc_MemoryError))
        PyErr_Clear(); /* Python meets it again on the same line, and tells it in its words */
    int failed = PyErr_Occurred() || (run != NULL && PyList_Append(events, run) < 0);
    Py_XDECREF(run);
    Py_XDECREF(key);
    Py_XDECREF(form);
    return failed ? NULL : PyLong_FromSsize_t(position);
}

PyDoc_STRVAR(init_converters_doc, "init_converters(timestamptz, timestamp, jsonb)\n\n"
"Name the converters of ``decode.values`` that are done here where a value is as usual.");

static PyObject *init_converters(PyObject *module, PyObject *const *arguments, Py_ssize_t given)
{
    if (given != 3) {
        PyErr_SetString(PyExc_TypeError, "init_converters(timestamptz, timestamp, jsonb)");
        return NULL;
    }
    Py_XSETREF(timestamptz_token, Py_NewRef(arguments[0]));
    Py_XSETREF(timestamp_token, Py_NewRef(arguments[1]));
    Py_XSETREF(jsonb_token, Py_NewRef(arguments[2]));
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"rows", (PyCFunction)(void (*)(void))rows, METH_FASTCALL, rows_doc},
    {"init_converters", (PyCFunction)(void (*)(void))init_converters, METH_FASTCALL, init_converters_doc},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_wal2json", "Rows of wal2json lines, in C.", -1, methods};

PyMODINIT_FUNC PyInit__wal2json(void)
{
    return PyModule_Create(&definition);
}
