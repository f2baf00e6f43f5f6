package kv

import (
	"encoding/binary"
	"fmt"
	"time"

	"openvstorage/arakoon"

	"github.com/google/uuid"
)

var le = binary.LittleEndian

func appendBytes(dst, b []byte) []byte { return append(le.AppendUint32(dst, uint32(len(b))), b...) }

func appendOption(dst, b []byte) []byte {
	if b == nil {
		return append(dst, 0)
	}
	return appendBytes(append(dst, 1), b)
}

// reader takes fields off the front of bytes; after the first bad one all are zero. What
// it returns are parts of these bytes.
type reader struct {
	b   []byte
	err error
}

func (r *reader) fail(format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf("%w: "+format, append([]any{ErrBadInput}, args...)...)
	}
}

func (r *reader) take(n uint64) []byte {
	if n > uint64(len(r.b)) {
		r.fail("%d bytes are needed, %d are left", n, len(r.b))
	}
	if r.err != nil {
		return nil
	}
	out := r.b[:n:n]
	r.b = r.b[n:]
	return out
}

func (r *reader) u8() byte {
	if b := r.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *reader) u32() uint32 {
	if b := r.take(4); b != nil {
		return le.Uint32(b)
	}
	return 0
}

func (r *reader) u64() uint64 {
	if b := r.take(8); b != nil {
		return le.Uint64(b)
	}
	return 0
}

func (r *reader) uuid() (id uuid.UUID) {
	copy(id[:], r.take(16))
	return id
}

func (r *reader) bytes() []byte { return r.take(uint64(r.u32())) }

func (r *reader) option() []byte {
	switch r.u8() {
	case 0:
		return nil
	case 1:
		if b := r.bytes(); b != nil {
			return b
		}
		return []byte{}
	}
	r.fail("an option is neither there nor absent")
	return nil
}

// rest is all that is left.
func (r *reader) rest() []byte { return r.take(uint64(len(r.b))) }

func (r *reader) end() error {
	if len(r.b) > 0 {
		r.fail("%d bytes too many", len(r.b))
	}
	return r.err
}

// version reads the first byte of a header, and zero more that must be zero.
func (r *reader) version(zero int) {
	if v := r.u8(); r.err == nil && v != Version {
		r.fail("version %d of the header; this release knows %d", v, Version)
	}
	r.zero(zero)
}

func (r *reader) zero(n int) {
	for _, b := range r.take(uint64(n)) {
		if b != 0 {
			r.fail("a byte that must be zero is %d", b)
		}
	}
}

// readHead is where a request that reads has its own fields.
const readHead = 12

// AppendRead appends the head of a request that reads.
func AppendRead(dst []byte, c arakoon.Consistency) []byte {
	kind := byte(2)
	switch c {
	case arakoon.Consistent:
		kind = 0
	case arakoon.Local:
		kind = 1
	}
	return le.AppendUint64(append(dst, Version, kind, 0, 0), c.Index())
}

func (r *reader) consistency() (c arakoon.Consistency) {
	r.version(0)
	kind := r.u8()
	r.zero(2)
	index := r.u64()
	switch {
	case kind > 2 || kind < 2 && index != 0:
		r.fail("consistency %d with revision %d", kind, index)
	case kind == 1:
		return arakoon.Local
	case kind == 2:
		return arakoon.AtLeast(index)
	}
	return arakoon.Consistent
}

// Scan is what a range asks for: the keys in [First, Last), ascending or descending. A Last
// of nil means to the end.
type Scan struct {
	First, Last []byte
	Descending  bool
	KeysOnly    bool
	Limit       uint32 // keys; 0: no limit
	Bytes       uint32 // about how many are wanted at once, up to PageMax; 0: PageSize
}

const (
	scanDescending = 1
	scanKeysOnly   = 2
)

// AppendScan appends a range's own fields.
func AppendScan(dst []byte, s *Scan) []byte {
	flags := byte(0)
	if s.Descending {
		flags |= scanDescending
	}
	if s.KeysOnly {
		flags |= scanKeysOnly
	}
	dst = le.AppendUint32(le.AppendUint32(append(dst, flags), s.Limit), s.Bytes)
	return appendOption(appendBytes(dst, s.First), s.Last)
}

func (r *reader) scan() (s Scan) {
	flags := r.u8()
	if flags&^(scanDescending|scanKeysOnly) != 0 {
		r.fail("flags %#x of a range", flags)
	}
	s.Descending, s.KeysOnly = flags&scanDescending != 0, flags&scanKeysOnly != 0
	s.Limit, s.Bytes = r.u32(), r.u32()
	s.First, s.Last = r.bytes(), r.option()
	return s
}

// AppendBounds appends the fields of a count.
func AppendBounds(dst, first, last []byte) []byte {
	return appendOption(appendBytes(dst, first), last)
}

// AppendKeys appends keys as the body of a multi-get.
func AppendKeys(dst []byte, keys [][]byte) []byte {
	for _, k := range keys {
		dst = appendBytes(dst, k)
	}
	return dst
}

// readKeys reads the body of a multi-get. count is checked first.
func readKeys(count uint32, body []byte) ([][]byte, error) {
	r := &reader{b: body}
	if count > KeysMax || uint64(count)*4 > uint64(len(body)) {
		r.fail("%d keys in %d bytes; at most %d may be", count, len(body), KeysMax)
		return nil, r.err
	}
	keys := make([][]byte, count)
	for i := range keys {
		keys[i] = r.bytes()
	}
	return keys, r.end()
}

// AppendWrite appends the header of a write; the session may be zero.
func AppendWrite(dst []byte, session uuid.UUID, request uint64) []byte {
	dst = append(append(dst, Version, 0, 0, 0), session[:]...)
	return le.AppendUint64(dst, request)
}

// AppendTransfer appends the header of a transfer of the lead; 0 is to the best other member.
func AppendTransfer(dst []byte, to uint64) []byte {
	return le.AppendUint64(append(dst, Version, 0, 0, 0), to)
}

// membersMax bounds each list of members in a request: more than any group has.
const membersMax = 64

// AppendMembers appends the header of a change of the members.
func AppendMembers(dst []byte, voters, learners []uint64) []byte {
	dst = append(dst, Version, 0, 0, 0)
	for _, list := range [][]uint64{voters, learners} {
		dst = le.AppendUint32(dst, uint32(len(list)))
		for _, id := range list {
			dst = le.AppendUint64(dst, id)
		}
	}
	return dst
}

func readMembers(b []byte) (m arakoon.Members, err error) {
	r := &reader{b: b}
	r.version(3)
	for _, list := range []*[]uint64{&m.Voters, &m.Learners} {
		n := r.u32()
		if n > membersMax {
			r.fail("%d members, at most %d", n, membersMax)
			break
		}
		for range n {
			*list = append(*list, r.u64())
		}
	}
	return m, r.end()
}

func readWrite(b []byte) (session uuid.UUID, request uint64, err error) {
	r := &reader{b: b}
	r.version(3)
	session, request = r.uuid(), r.u64()
	if (session == uuid.Nil) != (request == 0) {
		r.fail("request %d of session %v", request, session)
	}
	return session, request, r.end()
}

// Answer is the head of an answer to a request that reads.
type Answer struct {
	Revision uint64        // that the member had applied, at least, when it read; with More: that holds all that was seen
	Age      time.Duration // all that was answered longer ago is seen; in whole milliseconds
	Aged     bool          // the age is known
	More     bool          // the range goes on behind its last key
	Exists   bool          // of exists
}

const (
	answerAged   = 1
	answerMore   = 2
	answerExists = 4
	answerHead   = 16
)

func appendAnswer(dst []byte, a *Answer) []byte {
	flags := byte(0)
	age := uint32(0)
	if a.Aged {
		flags |= answerAged
		age = uint32(min(max((a.Age+time.Millisecond-1).Milliseconds(), 0), 1<<32-1)) // never younger than it is
	}
	if a.More {
		flags |= answerMore
	}
	if a.Exists {
		flags |= answerExists
	}
	return le.AppendUint64(le.AppendUint32(append(dst, Version, flags, 0, 0), age), a.Revision)
}

// ReadAnswer reads the head of an answer, and returns what comes behind it.
func ReadAnswer(header []byte) (a Answer, rest []byte, err error) {
	r := &reader{b: header}
	r.version(0)
	flags := r.u8()
	r.zero(2)
	a.Age, a.Revision = time.Duration(r.u32())*time.Millisecond, r.u64()
	if flags > answerAged|answerMore|answerExists {
		r.fail("flags %#x of an answer", flags)
	}
	a.Aged, a.More, a.Exists = flags&answerAged != 0, flags&answerMore != 0, flags&answerExists != 0
	return a, r.b, r.err
}

// ReadValues reads the body of an answer to a multi-get of count keys. The values are parts
// of it.
func ReadValues(count int, body []byte) ([][]byte, error) {
	r := &reader{b: body}
	if count > len(body) {
		r.fail("%d values in %d bytes", count, len(body))
		return nil, r.err
	}
	values := make([][]byte, count)
	for i := range values {
		values[i] = r.option()
	}
	return values, r.end()
}

// ReadPage calls fn with each key of a page, and its value unless the scan was of keys only,
// until fn returns false. They are parts of the body.
func ReadPage(body []byte, keysOnly bool, fn func(key, value []byte) bool) error {
	r := &reader{b: body}
	for len(r.b) > 0 {
		k, v := r.bytes(), []byte(nil)
		if !keysOnly {
			v = r.bytes()
		}
		if r.err != nil {
			return r.err
		}
		if !fn(k, v) {
			return nil
		}
	}
	return nil
}

// ReadCount reads what comes behind the head of an answer to a count. next is where to go
// on if there is more.
func ReadCount(rest []byte) (count uint64, next []byte, err error) {
	r := &reader{b: rest}
	return r.u64(), r.rest(), r.err
}

func appendWritten(dst []byte, revision uint64) []byte {
	return le.AppendUint64(append(dst, Version, 0, 0, 0), revision)
}

// ReadWritten reads the header of an answer to a write. rest is the session, of one that
// was opened.
func ReadWritten(header []byte) (revision uint64, rest []byte, err error) {
	r := &reader{b: header}
	r.version(3)
	return r.u64(), r.b, r.err
}

func (f *Failure) append(dst []byte) []byte {
	dst = le.AppendUint64(append(dst, Version, 0, 0, 0), f.Number)
	dst = le.AppendUint32(le.AppendUint32(dst, f.Code), f.Step)
	return append(appendBytes(dst, f.Key), f.Words[:min(len(f.Words), wordsMax)]...)
}

// ReadFailure reads the header of a failure. It keeps nothing of it.
func ReadFailure(status uint16, header []byte) (f Failure, err error) {
	r := &reader{b: header}
	r.version(3)
	f = Failure{Status: status, Number: r.u64(), Code: r.u32(), Step: r.u32()}
	f.Key = append([]byte(nil), r.bytes()...)
	f.Words = string(r.rest())
	return f, r.err
}
