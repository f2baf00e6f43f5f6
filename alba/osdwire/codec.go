package osdwire

import (
	"encoding/binary"
	"errors"
	"fmt"

	"openvstorage/alba/osd"
)

// Service is the name that connections to OSDs are made with.
const Service = "ovs-osd"

// Operations.
const (
	opApply  = 1
	opRead   = 2
	opStat   = 3
	opRange  = 4
	opVerify = 5
	opUsage  = 6
	opHold   = 7
	opFetch  = 8
)

// OpName names an operation, for messages and the table of who may call what.
func OpName(op uint16) string {
	names := [...]string{opApply: "apply", opRead: "read", opStat: "stat", opRange: "range", opVerify: "verify", opUsage: "usage", opHold: "hold", opFetch: "fetch"}
	if int(op) < len(names) && names[op] != "" {
		return names[op]
	}
	return fmt.Sprintf("operation %d", op)
}

// Writes says whether an operation may change what the OSD holds, or is a part of one that does.
// Whoever may only read is refused it.
func Writes(op uint16) bool {
	switch op {
	case opRead, opStat, opRange, opVerify, opUsage, opFetch:
		return false
	}
	return true
}

// errBytes says that bytes are no message of this protocol.
var errBytes = errors.New("malformed")

var le = binary.LittleEndian

// fields reads a message. The first field that is not there makes err.
type fields struct {
	b   []byte
	err error
}

func (f *fields) take(n int) []byte {
	if f.err != nil || n < 0 || n > len(f.b) {
		if f.err == nil {
			f.err = fmt.Errorf("%w: %d bytes are missing", errBytes, n-len(f.b))
		}
		return nil
	}
	p := f.b[:n:n]
	f.b = f.b[n:]
	return p
}

func (f *fields) u8() uint8 {
	if p := f.take(1); p != nil {
		return p[0]
	}
	return 0
}

func (f *fields) u16() uint16 {
	if p := f.take(2); p != nil {
		return le.Uint16(p)
	}
	return 0
}

func (f *fields) u32() uint32 {
	if p := f.take(4); p != nil {
		return le.Uint32(p)
	}
	return 0
}

func (f *fields) u64() uint64 {
	if p := f.take(8); p != nil {
		return le.Uint64(p)
	}
	return 0
}

func (f *fields) flag() bool {
	v := f.u8()
	if v > 1 && f.err == nil {
		f.err = fmt.Errorf("%w: %d is neither yes nor no", errBytes, v)
	}
	return v == 1
}

func (f *fields) key() []byte { return f.take(int(f.u16())) }

// count is a number of things of which each takes so many bytes at least, so that no more room is
// made for them than there are bytes.
func (f *fields) count(each int) int {
	n := f.u32()
	if f.err == nil && uint64(n)*uint64(each) > uint64(len(f.b)) {
		f.err = fmt.Errorf("%w: %d things in %d bytes", errBytes, n, len(f.b))
	}
	if f.err != nil {
		return 0
	}
	return int(n)
}

func (f *fields) crcs(n int) []uint32 {
	p := f.take(4 * n)
	if p == nil {
		return nil
	}
	crcs := make([]uint32, n)
	getCRCs(crcs, p)
	return crcs
}

func getCRCs(crcs []uint32, p []byte) {
	for i := range crcs {
		crcs[i] = le.Uint32(p[4*i:])
	}
}

// end says what was wrong, also with bytes that are left.
func (f *fields) end() error {
	if f.err == nil && len(f.b) > 0 {
		f.err = fmt.Errorf("%w: %d bytes too many", errBytes, len(f.b))
	}
	return f.err
}

func appendKey(dst, key []byte) []byte { return append(le.AppendUint16(dst, uint16(len(key))), key...) }

func appendFlag(dst []byte, v bool) []byte {
	if v {
		return append(dst, 1)
	}
	return append(dst, 0)
}

func appendCRCs(dst []byte, crcs []uint32) []byte {
	for _, c := range crcs {
		dst = le.AppendUint32(dst, c)
	}
	return dst
}

// assertLeast and updateLeast are the fewest bytes that one takes.
const (
	assertLeast = 1 + 8 + 2 + 4
	updateLeast = 1 + 8 + 8 + 2 + 4 + 4
	infoLeast   = 1 + 4 + 8 + 2
	badLeast    = 2 + 2 + 2
)

// appendApply appends all of an apply but the values of its updates.
func appendApply(dst []byte, asserts []osd.Assert, updates []osd.Update) []byte {
	dst = le.AppendUint32(le.AppendUint32(dst, uint32(len(asserts))), uint32(len(updates)))
	for _, a := range asserts {
		dst = appendKey(le.AppendUint64(append(dst, uint8(a.Kind)), a.Epoch), a.Key)
		dst = append(le.AppendUint32(dst, uint32(len(a.Value))), a.Value...)
	}
	for _, u := range updates {
		dst = le.AppendUint64(le.AppendUint64(appendFlag(dst, u.Delete), u.Value.Epoch), u.Value.Seed)
		dst = le.AppendUint32(le.AppendUint32(appendKey(dst, u.Key), uint32(len(u.Value.Data))), uint32(len(u.Value.CRCs)))
		dst = appendCRCs(dst, u.Value.CRCs)
	}
	return dst
}

// decodeApply reads an apply. What it returns refers to b.
func decodeApply(b []byte) (asserts []osd.Assert, updates []osd.Update, err error) {
	f := fields{b: b}
	na, nu := f.u32(), f.u32()
	if na > osd.UpdatesMax || nu > osd.UpdatesMax {
		return nil, nil, fmt.Errorf("%w: %d asserts and %d updates, at most %d of each may be", osd.ErrInvalid, na, nu, osd.UpdatesMax)
	}
	asserts, updates = make([]osd.Assert, na), make([]osd.Update, nu)
	for i := range asserts {
		a := &asserts[i]
		a.Kind, a.Epoch, a.Key = osd.AssertKind(f.u8()), f.u64(), f.key()
		a.Value = f.take(f.count(1))
	}
	sizes := make([]int, nu)
	for i := range updates {
		u := &updates[i]
		u.Delete, u.Value.Epoch, u.Value.Seed, u.Key = f.flag(), f.u64(), f.u64(), f.key()
		sizes[i] = int(f.u32())
		u.Value.CRCs = f.crcs(f.count(4))
	}
	for i := range updates {
		updates[i].Value.Data = f.take(sizes[i])
	}
	return asserts, updates, f.end()
}

func appendInfos(dst []byte, infos []osd.Info) []byte {
	for _, i := range infos {
		dst = appendKey(le.AppendUint64(le.AppendUint32(appendFlag(dst, i.Found), i.Size), i.Epoch), i.Key)
	}
	return dst
}

// decodeInfos reads infos. What it returns refers to b.
func decodeInfos(header, b []byte) ([]osd.Info, error) {
	h, f := fields{b: header}, fields{b: b}
	n := h.u32()
	if err := h.end(); err != nil {
		return nil, err
	}
	if n > osd.RangeMax || int(n)*infoLeast > len(b) {
		return nil, fmt.Errorf("%w: %d infos in %d bytes", errBytes, n, len(b))
	}
	infos := make([]osd.Info, n)
	for i := range infos {
		infos[i] = osd.Info{Found: f.flag(), Size: f.u32(), Epoch: f.u64(), Key: f.key()}
	}
	return infos, f.end()
}

func decodeKeys(header, b []byte) ([][]byte, error) {
	h, f := fields{b: header}, fields{b: b}
	n := h.u32()
	if err := h.end(); err != nil {
		return nil, err
	}
	if int64(n)*2 > int64(len(b)) {
		return nil, fmt.Errorf("%w: %d keys in %d bytes", errBytes, n, len(b))
	}
	keys := make([][]byte, n)
	for i := range keys {
		keys[i] = f.key()
	}
	return keys, f.end()
}

func appendBad(dst []byte, bad []osd.Bad) []byte {
	for _, b := range bad {
		dst = appendError(appendKey(dst, b.Key), b.Err)
	}
	return dst
}

func decodeBad(n int, b []byte) ([]osd.Bad, error) {
	if n > osd.RangeMax || n*badLeast > len(b) {
		return nil, fmt.Errorf("%w: %d values in %d bytes", errBytes, n, len(b))
	}
	f := fields{b: b}
	bad := make([]osd.Bad, n)
	for i := range bad {
		bad[i] = osd.Bad{Key: append([]byte(nil), f.key()...), Err: f.error()}
	}
	if len(bad) == 0 {
		bad = nil
	}
	return bad, f.end()
}

func appendUsage(dst []byte, u osd.Usage) []byte {
	for _, v := range []uint64{u.Used, u.Capacity, u.Room, u.Shared, u.Keys, u.Absent} {
		dst = le.AppendUint64(dst, v)
	}
	return appendError(appendError(appendFlag(dst, u.Full), u.ReadOnly), u.Trouble)
}

func decodeUsage(b []byte) (u osd.Usage, err error) {
	f := fields{b: b}
	for _, v := range []*uint64{&u.Used, &u.Capacity, &u.Room, &u.Shared, &u.Keys, &u.Absent} {
		*v = f.u64()
	}
	u.Full, u.ReadOnly, u.Trouble = f.flag(), f.error(), f.error()
	return u, f.end()
}
