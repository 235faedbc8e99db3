/* Optional: lines of COPY's text format as rows of its binary format, for seal/copy_binary.py. Built by `make native`; without it
 * the lines are sent as they are. What the server makes of either is the same (tests/integration/sink/test_copy_binary.py).
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <arpa/inet.h>
#include <stdint.h>
#include <string.h>
#include <strings.h>

#define MAX_COLUMNS 64
#define MAX_STRETCHES 4
#define GROWTH 64 /* bytes that any value but an array may be longer than its text, its length's four among them */
#define INET 2    /* PGSQL_AF_INET of PostgreSQL's utils/inet.h; IPv6 is one more */
#define TEXT_OID 25

/* The rows that are being made: a bytes object with more room than is filled. */
typedef struct {
    PyObject *bytes;
    size_t length, room;
} Rows;

/* A field's text as it stands in a line. */
typedef struct {
    const char *text;
    size_t length;
} Field;

/* Fields that follow each other, with the tab after them: in a line, and what they became in the rows. */
typedef struct {
    const char *text;
    size_t text_length, row_at, row_length;
} Stretch;

/* What is likely to come again in the next line: all rows of a transaction have the same time, user and position. */
typedef struct {
    Stretch stretches[MAX_STRETCHES];
    Field time;
    int64_t microseconds;
} Memory;

/* Each column's letter; how many columns a stretch has that begins there; whether one ends there. */
typedef struct {
    int columns;
    char of[MAX_COLUMNS], begins[MAX_COLUMNS], ends[MAX_COLUMNS];
} Kinds;

/* Room for `more` bytes; NULL without memory, with an error. */
static char *reserve(Rows *rows, size_t more)
{
    if (rows->length + more > rows->room) {
        rows->room = rows->room * 2 + more;
        if (_PyBytes_Resize(&rows->bytes, rows->room) < 0)
            return NULL;
    }
    return PyBytes_AS_STRING(rows->bytes) + rows->length;
}

static void write_big_endian(char *to, uint64_t number, int bytes)
{
    while (bytes--) {
        to[bytes] = (char)number;
        number >>= 8;
    }
}

/* A value that is a number of 4 or 8 bytes, with its length before it. */
static int put_number(Rows *rows, uint64_t number, int bytes)
{
    char *to = reserve(rows, GROWTH);
    if (to == NULL)
        return -1;
    write_big_endian(to, bytes, 4);
    write_big_endian(to + 4, number, bytes);
    rows->length += 4 + bytes;
    return 0;
}

/* Copy a field's text without COPY's escapes; how many bytes that are. */
static size_t unescape(char *to, const char *text, size_t length)
{
    static const char codes[] = "btnvfr", controls[] = "\b\t\n\v\f\r";
    char *begin = to;
    while (length) {
        const char *back = memchr(text, '\\', length);
        size_t plain = back == NULL ? length : (size_t)(back - text);
        memcpy(to, text, plain);
        to += plain;
        text += plain;
        length -= plain;
        if (length > 1) {
            const char *code = strchr(codes, text[1]);
            *to++ = code == NULL || *code == '\0' ? text[1] : controls[code - codes];
            text += 2;
            length -= 2;
        } else if (length) { /* COPY doesn't print a lone backslash */
            *to++ = *text++;
            length--;
        }
    }
    return to - begin;
}

/* A text, or a jsonb with its version before the text. */
static int put_text(Rows *rows, const char *text, size_t length, int is_jsonb)
{
    char *to = reserve(rows, GROWTH + length);
    if (to == NULL)
        return -1;
    if (is_jsonb)
        to[4] = 1;
    size_t written = is_jsonb + unescape(to + 4 + is_jsonb, text, length);
    write_big_endian(to, written, 4);
    rows->length += 4 + written;
    return 0;
}

/* An unsigned number that is all of a text of at most 18 digits; -1 if it isn't one. */
static int64_t number_of(const char *text, size_t length)
{
    int64_t number = 0;
    if (length == 0 || length > 18)
        return -1;
    for (size_t i = 0; i < length; i++) {
        if (text[i] < '0' || text[i] > '9')
            return -1;
        number = number * 10 + (text[i] - '0');
    }
    return number;
}

/* Days from 2000-01-01 to a date of the Gregorian calendar. */
static int64_t days_to(int64_t year, int64_t month, int64_t day)
{
    int64_t shifted = year - (month <= 2), century = shifted / 100;
    int64_t since_march = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
    return 365 * shifted + shifted / 4 - century + century / 4 + since_march - 730425;
}

static int days_in(int64_t year, int64_t month)
{
    static const char days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    return days[month - 1] + (month == 2 && year % 4 == 0 && (year % 100 != 0 || year % 400 == 0));
}

/* "2026-11-22 19:19:02.123456+00", with fewer digits or none of a second's fraction, as microseconds since 2000; 0 if it isn't one. */
static int timestamp_of(const char *text, size_t length, int64_t *microseconds)
{
    const char *end = text + length - 3, *dash = memchr(text, '-', length);
    if (length < 22 || memcmp(end, "+00", 3) != 0 || dash == NULL || dash - text < 4 || dash - text > 6 || end - dash < 15)
        return 0;
    if (dash[3] != '-' || dash[6] != ' ' || dash[9] != ':' || dash[12] != ':')
        return 0;
    int64_t year = number_of(text, dash - text), month = number_of(dash + 1, 2), day = number_of(dash + 4, 2);
    int64_t hour = number_of(dash + 7, 2), minute = number_of(dash + 10, 2), second = number_of(dash + 13, 2), fraction = 0;
    size_t digits = end - dash - 15;
    if (digits) {
        if (dash[15] != '.' || digits < 2 || digits > 7 || (fraction = number_of(dash + 16, digits - 1)) < 0)
            return 0;
        for (; digits < 7; digits++)
            fraction *= 10;
    }
    if (year < 1 || year > 294000 || month < 1 || month > 12 || day < 1 || day > days_in(year, month) || hour < 0 || hour > 23 ||
        minute < 0 || minute > 59 || second < 0 || second > 59)
        return 0;
    *microseconds = (((days_to(year, month, day) * 24 + hour) * 60 + minute) * 60 + second) * 1000000 + fraction;
    return 1;
}

static int put_timestamp(Rows *rows, const char *text, size_t length, Memory *memory)
{
    if (length != memory->time.length || memcmp(text, memory->time.text, length) != 0) {
        if (!timestamp_of(text, length, &memory->microseconds))
            return 1;
        memory->time = (Field){text, length};
    }
    return put_number(rows, memory->microseconds, 8);
}

/* A hex digit's value, negative if it isn't one; a table, since no processor guesses hashes' digits. */
static signed char hex_values[256];

static int hex_of(char digit)
{
    return hex_values[(unsigned char)digit];
}

static void fill_hex_values(void)
{
    memset(hex_values, -1, sizeof hex_values);
    for (int i = 0; i < 16; i++)
        hex_values[(unsigned char)"0123456789abcdef"[i]] = hex_values[(unsigned char)"0123456789ABCDEF"[i]] = (signed char)i;
}

/* "16/B374D848" */
static int put_lsn(Rows *rows, const char *text, size_t length)
{
    uint64_t lsn = 0, part = 0;
    size_t digits = 0;
    int slashes = 0;
    for (size_t i = 0; i < length; i++) {
        int value = hex_of(text[i]);
        if (value < 0) {
            if (text[i] != '/' || slashes++ || digits == 0)
                return 1;
            lsn = part << 32;
            part = digits = 0;
        } else if (++digits > 8)
            return 1;
        else
            part = part << 4 | value;
    }
    return slashes != 1 || digits == 0 ? 1 : put_number(rows, lsn | part, 8);
}

/* A bytea in hex format, whose backslash COPY has doubled. */
static int put_bytea(Rows *rows, const char *text, size_t length)
{
    if (length < 3 || length % 2 == 0 || memcmp(text, "\\\\x", 3) != 0)
        return 1;
    char *to = reserve(rows, GROWTH + length);
    if (to == NULL)
        return -1;
    write_big_endian(to, (length - 3) / 2, 4);
    to += 4;
    int any = 0; /* negative as soon as one of them is */
    for (size_t i = 3; i < length; i += 2) {
        int high = hex_of(text[i]), low = hex_of(text[i + 1]);
        any |= high | low;
        *to++ = (char)((unsigned)high << 4 | low);
    }
    if (any < 0)
        return 1;
    rows->length += 4 + (length - 3) / 2;
    return 0;
}

/* An address or network as inet prints it. */
static int put_inet(Rows *rows, const char *text, size_t length)
{
    char address[64];
    if (length >= sizeof address)
        return 1;
    memcpy(address, text, length);
    address[length] = '\0';
    char *slash = strchr(address, '/');
    int is_6 = strchr(address, ':') != NULL, size = is_6 ? 16 : 4;
    int64_t bits = slash == NULL ? 8 * size : number_of(slash + 1, strlen(slash + 1));
    if (slash != NULL)
        *slash = '\0';
    char *to = reserve(rows, GROWTH);
    if (to == NULL)
        return -1;
    if (bits < 0 || bits > 8 * size || inet_pton(is_6 ? AF_INET6 : AF_INET, address, to + 8) != 1)
        return 1;
    write_big_endian(to, 4 + size, 4);
    to[4] = (char)(INET + is_6);
    to[5] = (char)bits;
    to[6] = 0; /* is not a cidr */
    to[7] = (char)size;
    rows->length += 8 + size;
    return 0;
}

/* A text[] as array_out prints it, of one dimension and without nulls; COPY's escapes are gone. */
static int put_elements(Rows *rows, const char *text, size_t length)
{
    if (length < 2 || text[0] != '{' || text[length - 1] != '}')
        return 1;
    char *begin = reserve(rows, GROWTH + 5 * length), *to = begin + 24;
    if (begin == NULL)
        return -1;
    const char *at = text + 1, *end = text + length - 1;
    int64_t count = 0;
    while (at < end) {
        char *element = to;
        to += 4;
        if (*at == '"') {
            for (at++; at < end && *at != '"'; at++) {
                if (*at == '\\')
                    at++;
                *to++ = *at;
            }
            if (at++ >= end)
                return 1;
        } else {
            while (at < end && *at != ',') {
                if (*at == '"' || *at == '\\' || *at == '{' || *at == '}')
                    return 1;
                *to++ = *at++;
            }
            if (to == element + 4 || (to == element + 8 && strncasecmp(element + 4, "null", 4) == 0))
                return 1;
        }
        write_big_endian(element, to - element - 4, 4);
        count++;
        if (at < end && (*at++ != ',' || at == end))
            return 1;
    }
    write_big_endian(begin + 4, count ? 1 : 0, 4); /* dimensions */
    write_big_endian(begin + 8, 0, 4);             /* no nulls */
    write_big_endian(begin + 12, TEXT_OID, 4);
    write_big_endian(begin + 16, count, 4);
    write_big_endian(begin + 20, 1, 4); /* counted from 1 */
    size_t written = count ? (size_t)(to - begin) : 16;
    write_big_endian(begin, written - 4, 4);
    rows->length += written;
    return 0;
}

static int put_array(Rows *rows, const char *text, size_t length)
{
    if (memchr(text, '\\', length) == NULL)
        return put_elements(rows, text, length);
    char *plain = PyMem_Malloc(length);
    if (plain == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    int status = put_elements(rows, plain, unescape(plain, text, length));
    PyMem_Free(plain);
    return status;
}

/* One value with its length before it. 1: the text is not one of that kind; -1: an error. */
static int put_value(Rows *rows, char kind, const char *text, size_t length, Memory *memory)
{
    int64_t number;
    switch (kind) {
    case 't':
        return put_text(rows, text, length, 0);
    case 'j':
        return put_text(rows, text, length, 1);
    case 'a':
        return put_array(rows, text, length);
    case '4':
    case '8':
        number = number_of(text, length);
        return number < 0 || (kind == '4' && number > INT32_MAX) ? 1 : put_number(rows, number, kind - '0');
    case 'z':
        return put_timestamp(rows, text, length, memory);
    case 'l':
        return put_lsn(rows, text, length);
    case 'i':
        return put_inet(rows, text, length);
    case 'b':
        return put_bytea(rows, text, length);
    default:
        return 1;
    }
}

static int put_field(Rows *rows, char kind, const char *text, size_t length, Memory *memory)
{
    if (length != 2 || text[0] != '\\' || text[1] != 'N')
        return put_value(rows, kind, text, length, memory);
    char *to = reserve(rows, 4);
    if (to == NULL)
        return -1;
    memset(to, 0xff, 4);
    rows->length += 4;
    return 0;
}

/* Append what a stretch of fields became in the line before, if it is the same here. 0: it isn't; -1: an error. */
static int repeat(Rows *rows, const Stretch *stretch, const char *line, const char *end)
{
    if (stretch->text_length == 0 || (size_t)(end - line) <= stretch->text_length ||
        memcmp(line, stretch->text, stretch->text_length) != 0)
        return 0;
    char *to = reserve(rows, stretch->row_length);
    if (to == NULL)
        return -1;
    memcpy(to, PyBytes_AS_STRING(rows->bytes) + stretch->row_at, stretch->row_length);
    rows->length += stretch->row_length;
    return 1;
}

static int put_columns(Rows *rows, int columns)
{
    char *to = reserve(rows, 2);
    if (to == NULL)
        return -1;
    write_big_endian(to, columns, 2);
    rows->length += 2;
    return 0;
}

/* One line without its end. -1 with an error: ValueError names the field, and no value. */
static int put_line(Rows *rows, const Kinds *kinds, const char *line, const char *end, Memory *memory)
{
    const char *stretch_text = NULL;
    size_t stretch_at = 0;
    int number = 0; /* of the next stretch */
    if (put_columns(rows, kinds->columns) < 0)
        return -1;
    for (int column = 0; column < kinds->columns; column++) {
        if (kinds->begins[column]) {
            Stretch *stretch = &memory->stretches[number];
            int status = repeat(rows, stretch, line, end);
            if (status < 0)
                return -1;
            if (status) {
                line += stretch->text_length;
                column += kinds->begins[column] - 1;
                number++;
                continue;
            }
            stretch_text = line;
            stretch_at = rows->length;
        }
        const char *tab = memchr(line, '\t', end - line), *field_end = tab == NULL ? end : tab;
        if ((tab == NULL) != (column == kinds->columns - 1)) {
            PyErr_SetString(PyExc_ValueError, "a line has more or fewer fields than the table columns");
            return -1;
        }
        int status = put_field(rows, kinds->of[column], line, field_end - line, memory);
        if (status > 0)
            PyErr_Format(PyExc_ValueError, "the text of field %d of a line is not one of its column's type", column + 1);
        if (status)
            return -1;
        line = field_end + 1;
        if (kinds->ends[column])
            memory->stretches[number++] = (Stretch){stretch_text, line - stretch_text, stretch_at, rows->length - stretch_at};
    }
    return 0;
}

/* Read the letters; -1 with an error if they aren't right. */
static int read_kinds(Kinds *kinds, PyObject *letters)
{
    int first = -1, stretches = 0;
    memset(kinds, 0, sizeof *kinds);
    for (Py_ssize_t i = 0; i < PyBytes_GET_SIZE(letters); i++) {
        char letter = PyBytes_AS_STRING(letters)[i];
        if (letter == '(' && first < 0 && stretches++ < MAX_STRETCHES)
            first = kinds->columns;
        else if (letter == ')' && first >= 0 && kinds->columns > first) {
            kinds->begins[first] = kinds->columns - first;
            kinds->ends[kinds->columns - 1] = 1;
            first = -1;
        } else if (strchr("tja48zlib", letter) != NULL && letter && kinds->columns < MAX_COLUMNS)
            kinds->of[kinds->columns++] = letter;
        else
            goto wrong;
    }
    /* a line's last field has no tab after it, by which a stretch is told from a longer field */
    if (kinds->columns && first < 0 && !kinds->ends[kinds->columns - 1])
        return 0;
wrong:
    PyErr_SetString(PyExc_ValueError, "kinds are letters, some in brackets");
    return -1;
}

PyDoc_STRVAR(rows_doc, "rows(lines, kinds) -> rows\n\n"
"Rows of COPY's binary format, without its header and trailer, of whole lines of the text format. ``kinds`` has a letter for each\n"
"column: ``t`` text, ``j`` jsonb, ``a`` text[], ``4`` int, ``8`` bigint, ``z`` timestamptz, ``l`` pg_lsn, ``i`` inet, ``b`` bytea;\n"
"columns that are likely to be as in the line before stand in brackets. Raises ValueError for a line that ``seal.lines`` does not\n"
"make.");

static PyObject *binary_rows(PyObject *module, PyObject *const *arguments, Py_ssize_t given)
{
    Kinds kinds;
    if (given != 2 || !PyBytes_CheckExact(arguments[0]) || !PyBytes_CheckExact(arguments[1])) {
        PyErr_SetString(PyExc_TypeError, "rows(bytes, bytes)");
        return NULL;
    }
    if (read_kinds(&kinds, arguments[1]) < 0)
        return NULL;
    const char *line = PyBytes_AS_STRING(arguments[0]), *end = line + PyBytes_GET_SIZE(arguments[0]);
    size_t room = (end - line) + (end - line) / 4 + 1024;
    Rows rows = {PyBytes_FromStringAndSize(NULL, room), 0, room};
    Memory memory = {0};
    memory.time.text = "";
    while (rows.bytes != NULL && line < end) {
        const char *line_end = memchr(line, '\n', end - line);
        if (line_end == NULL)
            PyErr_SetString(PyExc_ValueError, "the last line has no end");
        if (line_end == NULL || put_line(&rows, &kinds, line, line_end, &memory) < 0) {
            Py_XDECREF(rows.bytes);
            return NULL;
        }
        line = line_end + 1;
    }
    if (rows.bytes != NULL)
        _PyBytes_Resize(&rows.bytes, rows.length);
    return rows.bytes;
}

static PyMethodDef methods[] = {
    {"rows", (PyCFunction)(void (*)(void))binary_rows, METH_FASTCALL, rows_doc},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_copy_binary", "COPY's binary format, in C.", -1, methods};

PyMODINIT_FUNC PyInit__copy_binary(void)
{
    fill_hex_values();
    return PyModule_Create(&definition);
}
