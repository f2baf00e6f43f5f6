package state

import (
	"encoding/binary"
	"fmt"

	"github.com/google/uuid"
)

const (
	version     = 1
	entryHead   = 24
	commandHead = 40

	kindSequence = 1
	kindSession  = 2
)

// Command is one replicated command.
type Command struct {
	Open    bool      // opens Session; Body is empty
	Session uuid.UUID // zero for none
	Request uint64    // in the session, rising from 1
	Time    int64     // the proposer's, Unix nanoseconds
	Body    []byte    // a sequence's steps
}

// Size is the command's length in an entry.
func (c Command) Size() int { return commandHead + len(c.Body) }

func appendCommand(dst []byte, c Command) []byte {
	le := binary.LittleEndian
	kind := uint16(kindSequence)
	if c.Open {
		kind = kindSession
	}
	dst = le.AppendUint16(dst, version)
	dst = le.AppendUint16(dst, kind)
	dst = le.AppendUint32(dst, uint32(len(c.Body)))
	dst = append(dst, c.Session[:]...)
	dst = le.AppendUint64(dst, c.Request)
	dst = le.AppendUint64(dst, uint64(c.Time))
	return append(dst, c.Body...)
}

// Batch is what an entry of the raft log holds.
type Batch struct {
	Origin   uint64
	Number   uint64
	Commands []Command
}

// AppendBatch appends the data of an entry.
func AppendBatch(dst []byte, b Batch) []byte {
	le := binary.LittleEndian
	dst = le.AppendUint16(dst, version)
	dst = le.AppendUint16(dst, 0)
	dst = le.AppendUint32(dst, uint32(len(b.Commands)))
	dst = le.AppendUint64(dst, b.Origin)
	dst = le.AppendUint64(dst, b.Number)
	for _, c := range b.Commands {
		dst = appendCommand(dst, c)
	}
	return dst
}

// DecodeBatch decodes the data of an entry. The bodies are parts of b.
func DecodeBatch(b []byte) (Batch, error) {
	r := &reader{b: b}
	if v, flags := r.u16(), r.u16(); v > version || flags != 0 {
		return Batch{}, fmt.Errorf("%w: entry of format %d with flags %#x, this release reads up to %d; run a release that reads it", ErrNewer, v, flags, version)
	} else if v == 0 {
		r.fail("entry of format 0")
	}
	n := r.u32()
	out := Batch{Origin: r.u64(), Number: r.u64()}
	if uint64(n)*commandHead > uint64(len(r.b)) {
		r.fail("%d commands in %d bytes", n, len(r.b))
	}
	for ; n > 0 && r.err == nil; n-- {
		c, err := r.command()
		if err != nil {
			return Batch{}, err
		}
		out.Commands = append(out.Commands, c)
	}
	return out, r.end()
}

func (r *reader) command() (c Command, err error) {
	v, kind, size := r.u16(), r.u16(), r.u32()
	copy(c.Session[:], r.take(16))
	c.Request = r.u64()
	c.Time = int64(r.u64())
	if r.err == nil && (v != version || kind != kindSequence && kind != kindSession) {
		return c, fmt.Errorf("%w: command of kind %d, format %d; run a release that knows it", ErrNewer, kind, v)
	}
	c.Open = kind == kindSession
	c.Body = r.take(uint64(size))
	return c, r.err
}
