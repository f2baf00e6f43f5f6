package osdwire

import (
	"encoding/binary"
	"fmt"

	"openvstorage/alba/osd"
	"openvstorage/internal/wire/field"
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
var errBytes = field.ErrMalformed

var le = binary.LittleEndian

// fields reads a message.
type fields struct{ field.Reader }

func read(b []byte) fields { return fields{field.Reader{Rest: b}} }

func (f *fields) key() []byte { return f.Take(int(f.U16())) }

// count is a number of things of which each takes so many bytes at least, so that no more room is
// made for them than there are bytes.
func (f *fields) count(each int) int {
	n := f.U32()
	if f.Err == nil && uint64(n)*uint64(each) > uint64(len(f.Rest)) {
		f.Err = fmt.Errorf("%w: %d things in %d bytes", errBytes, n, len(f.Rest))
	}
	if f.Err != nil {
		return 0
	}
	return int(n)
}

func (f *fields) crcs(n int) []uint32 {
	p := f.Take(4 * n)
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
	f := read(b)
	na, nu := f.U32(), f.U32()
	if na > osd.UpdatesMax || nu > osd.UpdatesMax {
		return nil, nil, fmt.Errorf("%w: %d asserts and %d updates, at most %d of each may be", osd.ErrInvalid, na, nu, osd.UpdatesMax)
	}
	asserts, updates = make([]osd.Assert, na), make([]osd.Update, nu)
	for i := range asserts {
		a := &asserts[i]
		a.Kind, a.Epoch, a.Key = osd.AssertKind(f.U8()), f.U64(), f.key()
		a.Value = f.Take(f.count(1))
	}
	sizes := make([]int, nu)
	for i := range updates {
		u := &updates[i]
		u.Delete, u.Value.Epoch, u.Value.Seed, u.Key = f.Flag(), f.U64(), f.U64(), f.key()
		sizes[i] = int(f.U32())
		u.Value.CRCs = f.crcs(f.count(4))
	}
	for i := range updates {
		updates[i].Value.Data = f.Take(sizes[i])
	}
	return asserts, updates, f.End()
}

func appendInfos(dst []byte, infos []osd.Info) []byte {
	for _, i := range infos {
		dst = appendKey(le.AppendUint64(le.AppendUint32(appendFlag(dst, i.Found), i.Size), i.Epoch), i.Key)
	}
	return dst
}

// decodeInfos reads infos. What it returns refers to b.
func decodeInfos(header, b []byte) ([]osd.Info, error) {
	h, f := read(header), read(b)
	n := h.U32()
	if err := h.End(); err != nil {
		return nil, err
	}
	if n > osd.RangeMax || int(n)*infoLeast > len(b) {
		return nil, fmt.Errorf("%w: %d infos in %d bytes", errBytes, n, len(b))
	}
	infos := make([]osd.Info, n)
	for i := range infos {
		infos[i] = osd.Info{Found: f.Flag(), Size: f.U32(), Epoch: f.U64(), Key: f.key()}
	}
	return infos, f.End()
}

func decodeKeys(header, b []byte) ([][]byte, error) {
	h, f := read(header), read(b)
	n := h.U32()
	if err := h.End(); err != nil {
		return nil, err
	}
	if int64(n)*2 > int64(len(b)) {
		return nil, fmt.Errorf("%w: %d keys in %d bytes", errBytes, n, len(b))
	}
	keys := make([][]byte, n)
	for i := range keys {
		keys[i] = f.key()
	}
	return keys, f.End()
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
	f := read(b)
	bad := make([]osd.Bad, n)
	for i := range bad {
		bad[i] = osd.Bad{Key: append([]byte(nil), f.key()...), Err: f.error()}
	}
	if len(bad) == 0 {
		bad = nil
	}
	return bad, f.End()
}

func appendUsage(dst []byte, u osd.Usage) []byte {
	for _, v := range []uint64{u.Used, u.Capacity, u.Room, u.Shared, u.Keys, u.Absent} {
		dst = le.AppendUint64(dst, v)
	}
	return appendError(appendError(appendFlag(dst, u.Full), u.ReadOnly), u.Trouble)
}

func decodeUsage(b []byte) (u osd.Usage, err error) {
	f := read(b)
	for _, v := range []*uint64{&u.Used, &u.Capacity, &u.Room, &u.Shared, &u.Keys, &u.Absent} {
		*v = f.U64()
	}
	u.Full, u.ReadOnly, u.Trouble = f.Flag(), f.error(), f.error()
	return u, f.End()
}
