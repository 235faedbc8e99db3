/* Optional: what seal/lines.py and seal/merkle.py do most often, in C. Built by `make native`; without it nothing is missing but
 * speed. What it returns equals what Python returns (tests/unit/seal/test_native.py). SHA-256 is OpenSSL's, as hashlib's is.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <openssl/evp.h>
#include <string.h>

#define HASH_LENGTH 32
#define MAX_COLUMNS 1664
#define MOST_AT_ONCE 1000000 /* bytes of lines that a run returns, give or take the last one */
#define MOST_KEPT 4000000    /* bytes of memory that the next run finds again */

/* Positions in seal.plan.Plan. */
enum { ACTION_NAME, ACTION, TABLE, NAMES, NEW, OLD, CHANGED, RECORD, RECORD_AT, RECORD_IN_OLD, TAIL, IS_PERSONAL, PLAN_LENGTH };
/* Positions in seal.plan.Image. */
enum { TEMPLATE, PICK, REWRITES, PIECES };

typedef struct {
    char *data;
    size_t length, room;
} Buffer;

static EVP_MD *sha256;
static EVP_MD_CTX *hashing;
/* seal.redact.mask_keys, and what stands, in any case of its letters, in every text that it changes; set by init_redaction(). */
static PyObject *mask_keys, *stems;
static unsigned char begins_stem[256];

/* The memory of the last run: a buffer that grows from nothing copies all it holds each time. */
static Buffer kept;

static Buffer take_buffer(void)
{
    Buffer taken = {kept.data, 0, kept.room};
    kept = (Buffer){NULL, 0, 0};
    return taken;
}

static void give_back(Buffer buffer)
{
    if (kept.data == NULL && buffer.room <= MOST_KEPT)
        kept = buffer;
    else
        PyMem_Free(buffer.data);
}

/* Room for `more` bytes; NULL without memory, with an error. */
static char *reserve(Buffer *buffer, size_t more)
{
    if (buffer->length + more > buffer->room) {
        size_t room = buffer->room * 2 + more;
        char *data = PyMem_Realloc(buffer->data, room);
        if (data == NULL) {
            PyErr_NoMemory();
            return NULL;
        }
        buffer->data = data;
        buffer->room = room;
    }
    return buffer->data + buffer->length;
}

static int put(Buffer *buffer, const char *data, size_t length)
{
    char *to = reserve(buffer, length);
    if (to == NULL)
        return -1;
    memcpy(to, data, length);
    buffer->length += length;
    return 0;
}

static int put_bytes(Buffer *buffer, PyObject *bytes)
{
    return put(buffer, PyBytes_AS_STRING(bytes), PyBytes_GET_SIZE(bytes));
}

/* A JSON text within a field of COPY: backslashes are doubled. */
static int put_json(Buffer *buffer, const char *text, size_t length)
{
    char *to = reserve(buffer, 2 * length);
    if (to == NULL)
        return -1;
    char *begin = to;
    while (length) {
        const char *back = memchr(text, '\\', length);
        size_t plain = back == NULL ? length : (size_t)(back - text) + 1;
        memcpy(to, text, plain);
        to += plain;
        if (back != NULL)
            *to++ = '\\';
        text += plain;
        length -= plain;
    }
    buffer->length += to - begin;
    return 0;
}

static int put_number(Buffer *buffer, long long number)
{
    char *to = reserve(buffer, 24);
    if (to == NULL)
        return -1;
    char digits[24], *at = digits + sizeof digits;
    do
        *--at = '0' + number % 10;
    while (number /= 10);
    size_t length = digits + sizeof digits - at;
    memcpy(to, at, length);
    buffer->length += length;
    return 0;
}

/* SHA-256 of a leaf (prefix 0) or an inner node (prefix 1). */
static int hash(unsigned char prefix, const void *data, size_t length, unsigned char *out)
{
    if (EVP_DigestInit_ex2(hashing, sha256, NULL) && EVP_DigestUpdate(hashing, &prefix, 1) &&
        EVP_DigestUpdate(hashing, data, length) && EVP_DigestFinal_ex(hashing, out, NULL))
        return 0;
    PyErr_SetString(PyExc_RuntimeError, "OpenSSL refuses to compute SHA-256");
    return -1;
}

static int are_equal(PyObject *one, PyObject *other)
{
    return one == other || (PyBytes_GET_SIZE(one) == PyBytes_GET_SIZE(other) &&
                            memcmp(PyBytes_AS_STRING(one), PyBytes_AS_STRING(other), PyBytes_GET_SIZE(one)) == 0);
}

static int is_null(PyObject *token)
{
    return PyBytes_GET_SIZE(token) == 4 && memcmp(PyBytes_AS_STRING(token), "null", 4) == 0;
}

/* One row's values of an image: those of the row, borrowed from its list, with rewritten ones in their places, owned. */
typedef struct {
    PyObject *image, *list;
    Py_ssize_t count;
    PyObject *values[MAX_COLUMNS];
} Values;

static int take_values(Values *values, PyObject *image, PyObject *list)
{
    values->image = image;
    values->list = list;
    values->count = 0;
    if (!PyList_CheckExact(list) || PyList_GET_SIZE(list) > MAX_COLUMNS) {
        PyErr_SetString(PyExc_TypeError, "a row's values are a list of at most 1,664");
        return -1;
    }
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(list); i++) {
        PyObject *value = PyList_GET_ITEM(list, i);
        if (!PyBytes_CheckExact(value)) {
            PyErr_SetString(PyExc_TypeError, "a value is bytes");
            return -1;
        }
        values->values[values->count++] = Py_NewRef(value);
    }
    return 0;
}

static void drop_values(Values *values)
{
    for (Py_ssize_t i = 0; i < values->count; i++)
        Py_DECREF(values->values[i]);
    values->count = 0;
}

static unsigned char lower(unsigned char byte)
{
    return byte >= 'A' && byte <= 'Z' ? byte + ('a' - 'A') : byte;
}

/* Whether a stem stands in a JSON text: only then can mask_keys change it. */
static int has_stem(PyObject *token)
{
    const unsigned char *text = (const unsigned char *)PyBytes_AS_STRING(token), *end = text + PyBytes_GET_SIZE(token);
    for (; text < end; text++) {
        if (!begins_stem[*text])
            continue;
        for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(stems); i++) {
            const char *stem = PyBytes_AS_STRING(PyTuple_GET_ITEM(stems, i));
            Py_ssize_t length = PyBytes_GET_SIZE(PyTuple_GET_ITEM(stems, i)), same = 0;
            while (same < length && same < end - text && lower(text[same]) == (unsigned char)stem[same])
                same++;
            if (same == length)
                return 1;
        }
    }
    return 0;
}

/* Rewrite the values that redaction looks at; `other`, already rewritten, may have the same ones. Counts what changed. */
static int rewrite(Values *values, const Values *other, long long *redacted)
{
    if (values->image == Py_None)
        return 0;
    PyObject *rewrites = PyTuple_GET_ITEM(values->image, REWRITES);
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(rewrites); i++) {
        PyObject *one = PyTuple_GET_ITEM(rewrites, i), *how = PyTuple_GET_ITEM(one, 1), *made = NULL;
        Py_ssize_t at = PyLong_AsSsize_t(PyTuple_GET_ITEM(one, 0));
        if (at < 0 || at >= values->count) {
            PyErr_SetString(PyExc_IndexError, "a rewrite's position");
            return -1;
        }
        PyObject *value = values->values[at];
        if (is_null(value) || (how == mask_keys && !has_stem(value)))
            continue;
        if (other != NULL && other->image != Py_None && at < other->count && at < PyList_GET_SIZE(other->list) &&
            PyList_GET_ITEM(other->list, at) == PyList_GET_ITEM(values->list, at) &&
            value == PyList_GET_ITEM(values->list, at)) {
            PyObject *others = PyTuple_GET_ITEM(other->image, REWRITES);
            if (i < PyTuple_GET_SIZE(others)) {
                PyObject *their = PyTuple_GET_ITEM(others, i);
                if (PyTuple_GET_ITEM(their, 1) == how && PyLong_AsSsize_t(PyTuple_GET_ITEM(their, 0)) == at &&
                    PyTuple_GET_SIZE(others) == PyTuple_GET_SIZE(rewrites))
                    made = Py_NewRef(other->values[at]);
            }
        }
        if (made == NULL)
            made = PyObject_CallOneArg(how, value);
        if (made == NULL)
            return -1;
        if (!PyBytes_CheckExact(made)) {
            Py_DECREF(made);
            PyErr_SetString(PyExc_TypeError, "a rewritten value is bytes");
            return -1;
        }
        *redacted += !are_equal(made, value);
        Py_SETREF(values->values[at], made);
    }
    return 0;
}

/* old_data or new_data: the image in jsonb's order of keys. */
static int put_image(Buffer *buffer, const Values *values)
{
    if (values->image == Py_None)
        return put(buffer, "\\N", 2);
    PyObject *pieces = PyTuple_GET_ITEM(values->image, PIECES);
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(pieces); i++) {
        PyObject *piece = PyTuple_GET_ITEM(pieces, i);
        Py_ssize_t at = PyLong_AsSsize_t(PyTuple_GET_ITEM(piece, 1));
        if (at < 0 || at >= values->count) {
            PyErr_SetString(PyExc_IndexError, "a value's position");
            return -1;
        }
        PyObject *value = values->values[at];
        if (put_bytes(buffer, PyTuple_GET_ITEM(piece, 0)) < 0 ||
            put_json(buffer, PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value)) < 0)
            return -1;
    }
    return put(buffer, PyTuple_GET_SIZE(pieces) ? "}" : "{}", PyTuple_GET_SIZE(pieces) ? 1 : 2);
}

static int put_record(Buffer *buffer, PyObject *plan, const Values *values)
{
    PyObject *position = PyTuple_GET_ITEM(plan, RECORD_AT);
    if (position != Py_None) { /* a key of one column, or none */
        Py_ssize_t at = PyLong_AsSsize_t(position);
        if (at < 0)
            return PyErr_Occurred() ? -1 : put(buffer, "\\N", 2);
        if (at < values->count) {
            const char *text = PyBytes_AS_STRING(values->values[at]);
            Py_ssize_t length = PyBytes_GET_SIZE(values->values[at]);
            if (is_null(values->values[at]))
                return put(buffer, "\\N", 2);
            if (length < 2 || text[0] != '"')
                return put_json(buffer, text, length);
            if (memchr(text, '\\', length) == NULL)
                return put(buffer, text + 1, length - 2);
        }
    }
    PyObject *list = PyList_New(values->count);
    for (Py_ssize_t i = 0; list != NULL && i < values->count; i++)
        PyList_SET_ITEM(list, i, Py_NewRef(values->values[i]));
    PyObject *made = list == NULL ? NULL : PyObject_CallOneArg(PyTuple_GET_ITEM(plan, RECORD), list);
    Py_XDECREF(list);
    int status = made == NULL || !PyBytes_CheckExact(made) ? -1 : put_bytes(buffer, made);
    Py_XDECREF(made);
    return status;
}

static int put_changed(Buffer *buffer, PyObject *names, PyObject *new, PyObject *old)
{
    Py_ssize_t count = PyTuple_GET_SIZE(names);
    if (!count)
        return put(buffer, "\\N", 2);
    int is_first = 1;
    if (put(buffer, "{", 1) < 0)
        return -1;
    for (Py_ssize_t i = 0; i < count && i < PyList_GET_SIZE(new) && i < PyList_GET_SIZE(old); i++) {
        if (are_equal(PyList_GET_ITEM(new, i), PyList_GET_ITEM(old, i)))
            continue;
        if ((!is_first && put(buffer, ",", 1) < 0) || put_bytes(buffer, PyTuple_GET_ITEM(names, i)) < 0)
            return -1;
        is_first = 0;
    }
    return put(buffer, "}", 1);
}

static int put_tab_and(Buffer *buffer, PyObject *bytes)
{
    return put(buffer, "\t", 1) < 0 || put_bytes(buffer, bytes) < 0 ? -1 : 0;
}

/* Everything of one line from schema_name to changed_fields. */
static int put_row(Buffer *buffer, PyObject *plan, PyObject *row, Values *new, Values *old, long long *redacted)
{
    PyObject *new_list = PyTuple_GET_ITEM(row, 1), *old_list = PyTuple_GET_ITEM(row, 2);
    if (take_values(new, PyTuple_GET_ITEM(plan, NEW), new_list) < 0 || take_values(old, PyTuple_GET_ITEM(plan, OLD), old_list) < 0)
        return -1;
    if (rewrite(old, NULL, redacted) < 0 || rewrite(new, old, redacted) < 0)
        return -1;
    int in_old = PyTuple_GET_ITEM(plan, RECORD_IN_OLD) == Py_True;
    if (put_tab_and(buffer, PyTuple_GET_ITEM(plan, NAMES)) < 0 || put(buffer, "\t", 1) < 0 ||
        put_record(buffer, plan, in_old ? old : new) < 0 || put_tab_and(buffer, PyTuple_GET_ITEM(plan, ACTION)) < 0 ||
        put(buffer, "\t", 1) < 0 || put_image(buffer, old) < 0 || put(buffer, "\t", 1) < 0 || put_image(buffer, new) < 0 ||
        put(buffer, "\t", 1) < 0 || put_changed(buffer, PyTuple_GET_ITEM(plan, CHANGED), new_list, old_list) < 0)
        return -1;
    return 0;
}

/* A tab, the leaf hash as bytea, and the line's end. */
static int put_hash(Buffer *buffer, const unsigned char *leaf)
{
    static const char digits[] = "0123456789abcdef";
    char *to = reserve(buffer, 4 + 2 * HASH_LENGTH + 1);
    if (to == NULL)
        return -1;
    memcpy(to, "\t\\\\x", 4);
    to += 4;
    for (int i = 0; i < HASH_LENGTH; i++) {
        *to++ = digits[leaf[i] >> 4];
        *to++ = digits[leaf[i] & 15];
    }
    *to = '\n';
    buffer->length += 4 + 2 * HASH_LENGTH + 1;
    return 0;
}

/* The plan of a shape, borrowed, of `plans` by id(shape); NULL, with or without an error, for a row that is Python's. */
static PyObject *plan_of(PyObject *plans, PyObject *shape)
{
    PyObject *id = PyLong_FromVoidPtr(shape);
    PyObject *found = id == NULL ? NULL : PyDict_GetItemWithError(plans, id);
    Py_XDECREF(id);
    if (found == NULL || !PyTuple_Check(found) || PyTuple_GET_SIZE(found) != 2)
        return NULL;
    PyObject *plan = PyTuple_GET_ITEM(found, 1);
    if (!PyTuple_Check(plan) || PyTuple_GET_SIZE(plan) != PLAN_LENGTH) {
        /* Without an error the caller would ask for the same row again, for ever. */
        PyErr_SetString(PyExc_TypeError, "plans are not those of this build: make native");
        return NULL;
    }
    return PyTuple_GET_ITEM(plan, IS_PERSONAL) == Py_False ? plan : NULL;
}

/* Append (plan, rows) to `counts`, where there are rows. */
static int count_rows(PyObject *counts, PyObject *plan, Py_ssize_t rows)
{
    PyObject *one = rows ? Py_BuildValue("On", plan, rows) : NULL;
    int status = rows && (one == NULL || PyList_Append(counts, one) < 0) ? -1 : 0;
    Py_XDECREF(one);
    return status;
}

PyDoc_STRVAR(run_doc, "run(changes, position, plans, before, who, after, first_id, first_seq, leaves, counts) -> (lines, rows, redacted)\n\n"
"The lines of the rows from ``position`` on, with row_hash and line end, up to a change that is not a row, or one whose shape's\n"
"plan is not in ``plans`` (LineWriter._plans) or is personal: 0 rows, then. It may end earlier, after a megabyte. Their leaf\n"
"hashes are appended to ``leaves``, and to ``counts`` a plan and a number for each run of rows of one shape. ``before`` is\n"
"created_at, ``who`` the context's fields, ``after`` xid and commit_lsn, each as they stand in a line. Raises what redaction and\n"
"record_id raise.");

static PyObject *run(PyObject *module, PyObject *const *arguments, Py_ssize_t given)
{
    if (given != 10 || !PyList_CheckExact(arguments[0]) || !PyDict_CheckExact(arguments[2]) || !PyBytes_CheckExact(arguments[3]) ||
        !PyBytes_CheckExact(arguments[4]) || !PyBytes_CheckExact(arguments[5]) || !PyList_CheckExact(arguments[8]) ||
        !PyList_CheckExact(arguments[9])) {
        PyErr_SetString(PyExc_TypeError, "run(list, int, dict, bytes, bytes, bytes, int, int, list, list)");
        return NULL;
    }
    PyObject *changes = arguments[0], *plans = arguments[2], *counts = arguments[9], *shape = NULL, *plan = NULL, *made = NULL;
    Py_ssize_t position = PyLong_AsSsize_t(arguments[1]), first = position, counted = position;
    long long id = PyLong_AsLongLong(arguments[6]), seq = PyLong_AsLongLong(arguments[7]), redacted = 0;
    if (PyErr_Occurred())
        return NULL;
    if (position < 0 || id < 0 || seq < 0) {
        PyErr_SetString(PyExc_ValueError, "run() counts from 0");
        return NULL;
    }
    Values *both = PyMem_Malloc(2 * sizeof *both);
    if (both == NULL)
        return PyErr_NoMemory();
    Buffer buffer = take_buffer();
    both[0].count = both[1].count = 0;
    for (; position < PyList_GET_SIZE(changes) && buffer.length < MOST_AT_ONCE; position++, id++, seq++) {
        PyObject *row = PyList_GET_ITEM(changes, position);
        if (!PyTuple_CheckExact(row) || PyTuple_GET_SIZE(row) != 3)
            break;
        if (PyTuple_GET_ITEM(row, 0) != shape) {
            if (count_rows(counts, plan, position - counted) < 0)
                goto failed;
            counted = position;
            shape = PyTuple_GET_ITEM(row, 0);
            if ((plan = plan_of(plans, shape)) == NULL)
                break;
        }
        unsigned char leaf[HASH_LENGTH];
        size_t begin = buffer.length;
        if (put_number(&buffer, id) < 0 || put_tab_and(&buffer, arguments[3]) < 0 ||
            put_row(&buffer, plan, row, &both[0], &both[1], &redacted) < 0 || put_tab_and(&buffer, arguments[4]) < 0 ||
            put_tab_and(&buffer, PyTuple_GET_ITEM(plan, TAIL)) < 0 || put_tab_and(&buffer, arguments[5]) < 0 ||
            put(&buffer, "\t", 1) < 0 || put_number(&buffer, seq) < 0 ||
            hash(0, buffer.data + begin, buffer.length - begin, leaf) < 0)
            goto failed;
        drop_values(&both[0]);
        drop_values(&both[1]);
        PyObject *leaf_bytes = PyBytes_FromStringAndSize((char *)leaf, HASH_LENGTH);
        int status = leaf_bytes == NULL ? -1 : PyList_Append(arguments[8], leaf_bytes);
        Py_XDECREF(leaf_bytes);
        if (status < 0 || put_hash(&buffer, leaf) < 0)
            goto failed;
    }
    if (!PyErr_Occurred() && count_rows(counts, plan, position - counted) == 0)
        made = Py_BuildValue("y#nL", buffer.data == NULL ? "" : buffer.data, (Py_ssize_t)buffer.length, position - first, redacted);
failed:
    drop_values(&both[0]);
    drop_values(&both[1]);
    PyMem_Free(both);
    give_back(buffer);
    return made;
}

PyDoc_STRVAR(perfect_doc, "perfect(nodes) -> root\n\nThe root over a list of a power of two of nodes, 32 bytes each.");

static PyObject *perfect(PyObject *module, PyObject *nodes)
{
    if (!PyList_CheckExact(nodes) || PyList_GET_SIZE(nodes) < 1 || (PyList_GET_SIZE(nodes) & (PyList_GET_SIZE(nodes) - 1))) {
        PyErr_SetString(PyExc_ValueError, "perfect() takes a list of a power of two of nodes");
        return NULL;
    }
    Py_ssize_t count = PyList_GET_SIZE(nodes);
    unsigned char *level = PyMem_Malloc(count * HASH_LENGTH);
    PyObject *root = NULL;
    if (level == NULL)
        return PyErr_NoMemory();
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *one = PyList_GET_ITEM(nodes, i);
        if (!PyBytes_CheckExact(one) || PyBytes_GET_SIZE(one) != HASH_LENGTH) {
            PyErr_SetString(PyExc_ValueError, "a node is 32 bytes");
            goto done;
        }
        memcpy(level + i * HASH_LENGTH, PyBytes_AS_STRING(one), HASH_LENGTH);
    }
    for (; count > 1; count /= 2)
        for (Py_ssize_t i = 0; i < count; i += 2) /* both children are read before the node is written */
            if (hash(1, level + i * HASH_LENGTH, 2 * HASH_LENGTH, level + i / 2 * HASH_LENGTH) < 0)
                goto done;
    root = PyBytes_FromStringAndSize((char *)level, HASH_LENGTH);
done:
    PyMem_Free(level);
    return root;
}

PyDoc_STRVAR(init_redaction_doc, "init_redaction(mask_keys, stems)\n\n"
"Name ``seal.redact.mask_keys``, and the stems, in small letters, without which it changes nothing.");

static PyObject *init_redaction(PyObject *module, PyObject *const *arguments, Py_ssize_t given)
{
    if (given != 2 || !PyTuple_CheckExact(arguments[1])) {
        PyErr_SetString(PyExc_TypeError, "init_redaction(mask_keys, tuple)");
        return NULL;
    }
    memset(begins_stem, 0, sizeof begins_stem);
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(arguments[1]); i++) {
        PyObject *stem = PyTuple_GET_ITEM(arguments[1], i);
        if (!PyBytes_CheckExact(stem) || !PyBytes_GET_SIZE(stem)) {
            PyErr_SetString(PyExc_TypeError, "a stem is bytes, and not empty");
            return NULL;
        }
        unsigned char first = PyBytes_AS_STRING(stem)[0];
        begins_stem[first] = 1;
        if (first >= 'a' && first <= 'z')
            begins_stem[first - ('a' - 'A')] = 1;
    }
    Py_XSETREF(mask_keys, Py_NewRef(arguments[0]));
    Py_XSETREF(stems, Py_NewRef(arguments[1]));
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"init_redaction", (PyCFunction)(void (*)(void))init_redaction, METH_FASTCALL, init_redaction_doc},
    {"run", (PyCFunction)(void (*)(void))run, METH_FASTCALL, run_doc},
    {"perfect", perfect, METH_O, perfect_doc},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_lines", "Lines and Merkle nodes, in C.", -1, methods};

PyMODINIT_FUNC PyInit__lines(void)
{
    sha256 = EVP_MD_fetch(NULL, "SHA256", NULL);
    hashing = EVP_MD_CTX_new();
    if (sha256 == NULL || hashing == NULL) {
        PyErr_SetString(PyExc_ImportError, "OpenSSL has no SHA-256");
        return NULL;
    }
    return PyModule_Create(&definition);
}
