/* Optional: what decode/wal2json.py does with the lines of rows, of transactions' ends and of messages, in C. Built by `make native`;
 * without it nothing is missing but speed. It reads only lines that have the very form of usual ones, rows' that of lines read
 * before, and stops at any other, which is then Python's: so it never decides what a strange line means. What it returns equals
 * what Python returns (tests/unit/decode/test_native.py).
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
/* model.event.Begin, Commit and Message; set by init_events(). */
static PyObject *begin_type, *commit_type, *message_type;

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

/* What is left of a line. */
typedef struct {
    const char *at, *end;
} Rest;

/* Go past a text. Whether it stands there. */
static int skip(Rest *rest, const char *text)
{
    size_t length = strlen(text);
    if ((size_t)(rest->end - rest->at) < length || memcmp(rest->at, text, length) != 0)
        return 0;
    rest->at += length;
    return 1;
}

/* Go past the characters of a JSON string and the quotation mark after them; where they end, or NULL if it has none. */
static const char *skip_string(Rest *rest)
{
    const char *end = rest->at > rest->end ? NULL : scalar_end(rest->at - 1, rest->end);
    if (end != NULL)
        rest->at = end;
    return end == NULL ? NULL : end - 1;
}

/* Go past a number of at most 10 digits; -1 if there is none. */
static long long skip_number(Rest *rest)
{
    long long number = 0;
    const char *begin = rest->at;
    while (rest->at < rest->end && rest->at - begin < 10 && *rest->at >= '0' && *rest->at <= '9')
        number = number * 10 + (*rest->at++ - '0');
    return rest->at == begin || (*begin == '0' && rest->at - begin > 1) ? -1 : number;
}

/* Go past an LSN and the quotation mark after it. Whether one stands there. */
static int skip_lsn(Rest *rest, unsigned long long *lsn)
{
    *lsn = 0;
    for (int half = 0; half < 2; half++) {
        unsigned long long number = 0;
        int digits = 0;
        for (; rest->at < rest->end && digits <= 8; rest->at++, digits++) {
            char digit = *rest->at;
            if (digit >= '0' && digit <= '9')
                number = number << 4 | (unsigned)(digit - '0');
            else if (digit >= 'A' && digit <= 'F')
                number = number << 4 | (unsigned)(digit - 'A' + 10);
            else
                break;
        }
        if (digits == 0 || digits > 8 || !skip(rest, half ? "\"" : "/"))
            return 0;
        *lsn = *lsn << 32 | number;
    }
    return 1;
}

/* A NamedTuple of fields, which it takes over; NULL if one of them is. */
static PyObject *event_of(PyObject *type, PyObject **fields, Py_ssize_t count)
{
    int is_whole = type != NULL;
    for (Py_ssize_t i = 0; i < count; i++)
        is_whole &= fields[i] != NULL;
    PyObject *made = is_whole ? ((PyTypeObject *)type)->tp_alloc((PyTypeObject *)type, count) : NULL;
    for (Py_ssize_t i = 0; i < count; i++)
        if (made != NULL)
            PyTuple_SET_ITEM(made, i, fields[i]);
        else
            Py_XDECREF(fields[i]);
    return made;
}

/* What the ends of a transaction have in common, from `,"xid"` on. Whether all of the line is that; `time` is commit time's text. */
static int read_ends(Rest rest, long long *xid, Rest *time, unsigned long long *end_lsn)
{
    unsigned long long lsn;
    if (!skip(&rest, "\",\"xid\":") || (*xid = skip_number(&rest)) < 0 || !skip(&rest, ",\"timestamp\":\""))
        return 0;
    time->at = rest.at;
    if ((time->end = skip_string(&rest)) == NULL || memchr(time->at, '\\', time->end - time->at) != NULL)
        return 0;
    for (const char *at = time->at; at < time->end; at++)
        if (*at < ' ') /* or not of ASCII */
            return 0;
    return skip(&rest, ",\"lsn\":\"") && skip_lsn(&rest, &lsn) && skip(&rest, ",\"nextlsn\":\"") && skip_lsn(&rest, end_lsn) &&
           skip(&rest, "}") && rest.at == rest.end;
}

/* A transactional message, from `,"xid"` on; NULL, with or without an error, for any other: then it is Python's. */
static PyObject *message_of(Rest rest)
{
    unsigned long long lsn;
    if (!skip(&rest, "\",\"xid\":") || skip_number(&rest) < 0 || !skip(&rest, ",\"timestamp\":\"") || skip_string(&rest) == NULL ||
        !skip(&rest, ",\"lsn\":\"") || !skip_lsn(&rest, &lsn) || !skip(&rest, ",\"transactional\":true,\"prefix\":\""))
        return NULL;
    const char *prefix = rest.at, *prefix_end = skip_string(&rest);
    if (prefix_end == NULL || memchr(prefix, '\\', prefix_end - prefix) != NULL || !skip(&rest, ",\"content\":\""))
        return NULL;
    const char *content = rest.at - 1, *content_end = skip_string(&rest);
    if (content_end == NULL || !skip(&rest, "}") || rest.at != rest.end)
        return NULL;
    for (const char *at = prefix; at < prefix_end; at++)
        if (*at < ' ')
            return NULL;
    PyObject *token = PyBytes_FromStringAndSize(content, content_end + 1 - content);
    PyObject *text = token == NULL ? NULL : from_jsonb(token);
    Py_XDECREF(token);
    if (text == NULL)
        return NULL;
    PyObject *fields[] = {
        Py_NewRef(Py_True),
        PyUnicode_DecodeUTF8(prefix, prefix_end - prefix, NULL),
        PyUnicode_DecodeUTF8(PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text), NULL),
        PyLong_FromUnsignedLongLong(lsn),
    };
    Py_DECREF(text);
    return event_of(message_type, fields, 4);
}

/* Where the reading is: in which transaction, and what it has given. All owned but `events`. */
typedef struct {
    PyObject *events, *run; /* run: the rows that are not yet among the events */
    PyObject *begin;        /* what a COMMIT must say, too; b"" outside of a transaction */
    PyObject *key, *form;   /* of the row before */
    int is_empty, takes_begin, takes_commit;
} Reading;

/* Append an event, which it takes over, behind the rows before it. 0: it is NULL; -1: an error. */
static int add_event(Reading *reading, PyObject *event)
{
    if (event == NULL)
        return PyErr_Occurred() ? -1 : 0;
    int status = reading->run != NULL ? PyList_Append(reading->events, reading->run) : 0;
    Py_CLEAR(reading->run);
    if (status == 0)
        status = PyList_Append(reading->events, event);
    Py_DECREF(event);
    return status < 0 ? -1 : 1;
}

/* BEGIN. 1: it was taken; 0: it is Python's; -1: an error. */
static int take_begin(Reading *reading, const char *line, const char *end)
{
    long long xid;
    unsigned long long end_lsn;
    Rest time, rest = {line + ACTION_AT + 1, end};
    if (!reading->takes_begin || !read_ends(rest, &xid, &time, &end_lsn))
        return 0;
    PyObject *fields[] = {PyLong_FromLongLong(xid), PyLong_FromUnsignedLongLong(end_lsn),
                          PyUnicode_DecodeUTF8(time.at, time.end - time.at, NULL)};
    PyObject *begin = PyBytes_FromStringAndSize(rest.at, end - rest.at);
    int status = begin == NULL ? -1 : add_event(reading, event_of(begin_type, fields, 3));
    if (status > 0) {
        Py_SETREF(reading->begin, begin);
        reading->is_empty = 1;
    } else
        Py_XDECREF(begin);
    return status;
}

/* COMMIT of a transaction in which rows were shown. As take_begin. */
static int take_commit(Reading *reading, const char *line, const char *end)
{
    long long xid;
    unsigned long long end_lsn;
    Rest time, rest = {line + ACTION_AT + 1, end};
    if (!reading->takes_commit || reading->is_empty || PyBytes_GET_SIZE(reading->begin) != end - rest.at ||
        memcmp(PyBytes_AS_STRING(reading->begin), rest.at, end - rest.at) != 0 || !read_ends(rest, &xid, &time, &end_lsn))
        return 0;
    PyObject *nothing = PyBytes_FromStringAndSize(NULL, 0), *fields[] = {PyLong_FromUnsignedLongLong(end_lsn)};
    int status = nothing == NULL ? -1 : add_event(reading, event_of(commit_type, fields, 1));
    if (status > 0)
        Py_SETREF(reading->begin, nothing);
    else
        Py_XDECREF(nothing);
    return status;
}

/* A row of a form that is known. As take_begin. */
static int take_row(Reading *reading, PyObject *forms, const char *line, const char *end)
{
    const char *schema = memmem(line + ACTION_AT, end - line - ACTION_AT, SCHEMA, SCHEMA_LENGTH);
    if (schema == NULL || !is_utf_8(line, end - line))
        return 0;
    const char *first = NULL; /* the first value's name */
    if (reading->key != NULL) {
        Py_ssize_t length = PyBytes_GET_SIZE(reading->key) - 1;
        const char *text = PyBytes_AS_STRING(reading->key);
        if (text[0] == line[ACTION_AT] && end - schema > length + VALUE_LENGTH && memcmp(schema, text + 1, length) == 0 &&
            memcmp(schema + length, VALUE, VALUE_LENGTH) == 0)
            first = schema + length;
    }
    if (first == NULL) {
        first = memmem(line, end - line, VALUE, VALUE_LENGTH);
        if (first == NULL || first < schema)
            return 0;
        PyObject *made = PyBytes_FromStringAndSize(NULL, 1 + (first - schema));
        if (made == NULL)
            return -1;
        PyBytes_AS_STRING(made)[0] = line[ACTION_AT];
        memcpy(PyBytes_AS_STRING(made) + 1, schema, first - schema);
        Py_XSETREF(reading->key, made);
        PyObject *found = PyDict_GetItemWithError(forms, made);
        if (found == NULL || !PyTuple_Check(found) || PyTuple_GET_SIZE(found) < FORM_LENGTH)
            return PyErr_Occurred() ? -1 : 0;
        Py_XSETREF(reading->form, Py_NewRef(found));
    }
    PyObject *row = row_of(first, end, reading->form);
    int status = row == NULL ? (PyErr_Occurred() ? -1 : 0) : row == Py_None ? 1 : append(&reading->run, row) < 0 ? -1 : 1;
    Py_XDECREF(row);
    if (status > 0)
        reading->is_empty = 0;
    return status;
}

static int take(Reading *reading, PyObject *forms, PyObject *item)
{
    const char *line = PyBytes_AS_STRING(item), *end = line + PyBytes_GET_SIZE(item);
    if (end - line < 32)
        return 0;
    switch (line[ACTION_AT]) {
    case 'I':
    case 'U':
    case 'D':
        return take_row(reading, forms, line, end);
    case 'B':
        return skip(&(Rest){line, end}, "{\"action\":\"B") ? take_begin(reading, line, end) : 0;
    case 'C':
        return skip(&(Rest){line, end}, "{\"action\":\"C") ? take_commit(reading, line, end) : 0;
    case 'M':
        if (!skip(&(Rest){line, end}, "{\"action\":\"M") || !is_utf_8(line, end - line))
            return 0;
        return add_event(reading, message_of((Rest){line + ACTION_AT + 1, end}));
    default:
        return 0;
    }
}

PyDoc_STRVAR(events_doc, "events(items, position, forms, events, begin, is_empty, takes_begin, takes_commit) -> (position, begin, is_empty)\n\n"
"Append the events of ``items`` from ``position`` on, rows as lists of all that follow each other, and return the position of the\n"
"first item that Python must look at: anything but the line of a row whose form is in ``forms`` (Wal2JsonDecoder._recent), of an end\n"
"of a transaction and of a transactional message. ``begin`` is what the open transaction's COMMIT must say, b\"\" outside of one, and\n"
"``is_empty`` whether it has shown no row; the last two say whether a BEGIN and a COMMIT may be taken. ``items`` is a list of lines in\n"
"UTF-8 and other objects. Raises only MemoryError.");

static PyObject *events(PyObject *module, PyObject *const *arguments, Py_ssize_t given)
{
    if (given != 8 || !PyList_CheckExact(arguments[0]) || !PyDict_CheckExact(arguments[2]) || !PyList_CheckExact(arguments[3]) ||
        !PyBytes_CheckExact(arguments[4])) {
        PyErr_SetString(PyExc_TypeError, "events(list, int, dict, list, bytes, bool, bool, bool)");
        return NULL;
    }
    PyObject *items = arguments[0], *made = NULL;
    Py_ssize_t position = PyLong_AsSsize_t(arguments[1]);
    if (position < 0)
        return PyErr_Occurred() ? NULL : (PyErr_SetString(PyExc_IndexError, "position"), NULL);
    Reading reading = {.events = arguments[3], .begin = Py_NewRef(arguments[4])};
    reading.is_empty = PyObject_IsTrue(arguments[5]);
    reading.takes_begin = PyObject_IsTrue(arguments[6]);
    reading.takes_commit = PyObject_IsTrue(arguments[7]);
    int status = 1;
    for (; status > 0 && position < PyList_GET_SIZE(items); position += status > 0) {
        PyObject *item = PyList_GET_ITEM(items, position);
        status = PyBytes_CheckExact(item) ? take(&reading, arguments[2], item) : 0;
    }
    if (PyErr_Occurred() && !PyErr_ExceptionMatches(PyExc_MemoryError))
        PyErr_Clear(); /* Python meets it again on the same line, and tells it in its words */
    if (!PyErr_Occurred() && (reading.run == NULL || PyList_Append(reading.events, reading.run) == 0))
        made = Py_BuildValue("nOO", position, reading.begin, reading.is_empty ? Py_True : Py_False);
    Py_XDECREF(reading.run);
    Py_XDECREF(reading.begin);
    Py_XDECREF(reading.key);
    Py_XDECREF(reading.form);
    return made;
}

PyDoc_STRVAR(init_events_doc, "init_events(Begin, Commit, Message)\n\nName the classes of ``model.event`` that are made here.");

static PyObject *init_events(PyObject *module, PyObject *const *arguments, Py_ssize_t given)
{
    for (Py_ssize_t i = 0; i < given; i++)
        if (!PyType_Check(arguments[i]) || !PyType_IsSubtype((PyTypeObject *)arguments[i], &PyTuple_Type))
            given = -1;
    if (given != 3) {
        PyErr_SetString(PyExc_TypeError, "init_events(Begin, Commit, Message)");
        return NULL;
    }
    Py_XSETREF(begin_type, Py_NewRef(arguments[0]));
    Py_XSETREF(commit_type, Py_NewRef(arguments[1]));
    Py_XSETREF(message_type, Py_NewRef(arguments[2]));
    Py_RETURN_NONE;
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
    {"events", (PyCFunction)(void (*)(void))events, METH_FASTCALL, events_doc},
    {"init_events", (PyCFunction)(void (*)(void))init_events, METH_FASTCALL, init_events_doc},
    {"init_converters", (PyCFunction)(void (*)(void))init_converters, METH_FASTCALL, init_converters_doc},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_wal2json", "Events of wal2json lines, in C.", -1, methods};

PyMODINIT_FUNC PyInit__wal2json(void)
{
    return PyModule_Create(&definition);
}
