package proxy

import (
	"encoding/binary"
	"fmt"

	"openvstorage/backend"
	"openvstorage/internal/wire/field"
)

// Service is the name that connections to a proxy are made with.
const Service = "ovs-proxy"

// Operations.
const (
	opPut        = 1
	opPutIf      = 2
	opGet        = 3
	opStat       = 4
	opDelete     = 5
	opList       = 6
	opNarrow     = 7
	opCreate     = 8
	opRemove     = 9
	opNamespaces = 10
	opUsage      = 11
	opHold       = 12
	opStats      = 13
	opIdentify   = 14
)

var opNames = [...]string{
	opPut: "put", opPutIf: "put-if", opGet: "get", opStat: "stat", opDelete: "delete", opList: "list", opNarrow: "narrow", opCreate: "create",
	opRemove: "remove", opNamespaces: "namespaces", opUsage: "usage", opHold: "hold", opStats: "stats", opIdentify: "identify",
}

// OpName names an operation, for messages and the table of who may call what.
func OpName(op uint16) string {
	if int(op) < len(opNames) && opNames[op] != "" {
		return opNames[op]
	}
	return fmt.Sprintf("operation %d", op)
}

// Writes reports whether an operation changes something. One that is not known may.
func Writes(op uint16) bool {
	switch op {
	case opGet, opStat, opList, opNarrow, opNamespaces, opUsage, opStats, opIdentify:
		return false
	}
	return true
}

// Bounds of what is in one message.
const (
	pageMax   = 1000  // objects or namespaces in an answer
	deleteMax = 65536 // names in a request
)

// errBytes says that bytes are no message of this protocol.
var errBytes = field.ErrMalformed

var le = binary.LittleEndian

// fields reads a message.
type fields struct{ field.Reader }

func read(b []byte) fields { return fields{field.Reader{Rest: b}} }

func (f *fields) name() string { return string(f.Take(int(f.U8()))) }

// size is a number of bytes, as many as an int64 holds.
func (f *fields) size() int64 {
	n := f.U64()
	if f.Err == nil && n > 1<<63-1 {
		f.Err = fmt.Errorf("%w: %d bytes", errBytes, n)
		return 0
	}
	return int64(n)
}

// appendName appends a name, which has up to 255 bytes.
func appendName(dst []byte, name string) []byte {
	return append(append(dst, uint8(len(name))), name...)
}

func appendFlag(dst []byte, v bool) []byte {
	if v {
		return append(dst, 1)
	}
	return append(dst, 0)
}

func appendNames(dst []byte, names []string) []byte {
	for _, n := range names {
		dst = appendName(dst, n)
	}
	return dst
}

// decodeNames reads so many names, and nothing else.
func decodeNames(count uint32, b []byte, most int) ([]string, error) {
	if int64(count) > int64(most) || int64(count) > int64(len(b)) {
		return nil, fmt.Errorf("%w: %d names in %d bytes, at most %d may be", errBytes, count, len(b), most)
	}
	f := read(b)
	names := make([]string, count)
	for i := range names {
		names[i] = f.name()
	}
	return names, f.End()
}

// object is what the requests about one object begin with.
type object struct{ namespace, name string }

func (o object) append(dst []byte) []byte { return appendName(appendName(dst, o.namespace), o.name) }

func (f *fields) object() object { return object{f.name(), f.name()} }

// putting is the header of a put, or of a put-if.
type putting struct {
	object
	held    uint64
	version backend.Version // of a put-if
}

func (p putting) append(dst []byte, op uint16) []byte {
	dst = le.AppendUint64(p.object.append(dst), p.held)
	if op == opPutIf {
		dst = le.AppendUint64(dst, uint64(p.version))
	}
	return dst
}

func decodePutting(op uint16, b []byte) (p putting, err error) {
	f := read(b)
	p.object, p.held = f.object(), f.U64()
	if op == opPutIf {
		p.version = backend.Version(f.U64())
	}
	return p, f.End()
}

// getting is the header of a get.
type getting struct {
	object
	off int64
	n   uint32
}

func (g getting) append(dst []byte) []byte {
	return le.AppendUint32(le.AppendUint64(g.object.append(dst), uint64(g.off)), g.n)
}

func decodeGetting(b []byte) (g getting, err error) {
	f := read(b)
	g.object, g.off, g.n = f.object(), f.size(), f.U32()
	return g, f.End()
}

// part is the header of a hold.
type part struct {
	held     uint64
	size, at int64
}

func (p part) append(dst []byte) []byte {
	return le.AppendUint64(le.AppendUint64(le.AppendUint64(dst, p.held), uint64(p.size)), uint64(p.at))
}

func decodePart(b []byte) (p part, err error) {
	f := read(b)
	p.held, p.size, p.at = f.U64(), f.size(), f.size()
	return p, f.End()
}

// deletion is a delete: its header, and names in its body.
type deletion struct {
	namespace string
	names     []string
	cond      *backend.Condition
}

func (d deletion) header() []byte {
	b := le.AppendUint32(appendName(nil, d.namespace), uint32(len(d.names)))
	if b = appendFlag(b, d.cond != nil); d.cond != nil {
		b = le.AppendUint64(appendName(b, d.cond.Name), uint64(d.cond.Version))
	}
	return b
}

func decodeDeletion(header, body []byte) (d deletion, err error) {
	f := read(header)
	d.namespace = f.name()
	count := f.U32()
	if f.Flag() {
		d.cond = &backend.Condition{Name: f.name(), Version: backend.Version(f.U64())}
	}
	if err := f.End(); err != nil {
		return d, err
	}
	d.names, err = decodeNames(count, body, deleteMax)
	return d, err
}

// listing is the header of a list: a page of objects behind a name.
type listing struct {
	namespace, prefix, after string
	limit                    uint32
}

func (l listing) append(dst []byte) []byte {
	return le.AppendUint32(appendName(appendName(appendName(dst, l.namespace), l.prefix), l.after), l.limit)
}

func decodeListing(b []byte) (l listing, err error) {
	f := read(b)
	l.namespace, l.prefix, l.after, l.limit = f.name(), f.name(), f.name(), f.U32()
	return l, f.End()
}

// appendPage appends what the header of a page says: how many there are, and whether there may be
// more behind them.
func appendPage(dst []byte, count int, more bool) []byte {
	return appendFlag(le.AppendUint32(dst, uint32(count)), more)
}

func decodePage(b []byte) (count uint32, more bool, err error) {
	f := read(b)
	count, more = f.U32(), f.Flag()
	return count, more, f.End()
}

// infoLeast is the fewest bytes of an object in a list.
const infoLeast = 1 + 8 + 8

func appendInfo(dst []byte, i backend.Info) []byte {
	return le.AppendUint64(le.AppendUint64(appendName(dst, i.Name), uint64(i.Size)), uint64(i.Version))
}

func decodeInfos(count uint32, b []byte) ([]backend.Info, error) {
	if count > pageMax || int(count)*infoLeast > len(b) {
		return nil, fmt.Errorf("%w: %d objects in %d bytes, at most %d may be", errBytes, count, len(b), pageMax)
	}
	f := read(b)
	infos := make([]backend.Info, count)
	for i := range infos {
		infos[i] = backend.Info{Name: f.name(), Size: f.size(), Version: backend.Version(f.U64())}
	}
	return infos, f.End()
}
