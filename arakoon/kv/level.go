package kv

import (
	"context"

	"openvstorage/internal/wire"
)

// Level is what a member says of levels.
type Level struct {
	Group uint32 // the level of the group, as far as the member has applied
	Knows uint32 // the newest that the release knows that the member runs now
}

// AppendRaise appends the header of a request that raises the group to a level. Whoever sends it
// asserts that all members have said that they know the level.
func AppendRaise(dst []byte, level uint32) []byte {
	return le.AppendUint32(append(dst, Version, 0, 0, 0), level)
}

func readRaise(header []byte) (level uint32, err error) {
	r := &reader{b: header}
	r.version(3)
	level = r.u32()
	return level, r.end()
}

// raiseLevel raises the group, once its members are known to know the level.
func (s *Server) raiseLevel(ctx context.Context, g *Group, r *wire.Incoming) (wire.Answer, error) {
	level, err := readRaise(r.Header)
	if err == nil {
		err = g.Node.RaiseLevel(ctx, level, true)
	}
	if err != nil {
		return wire.Answer{}, err
	}
	return wire.Answer{Header: appendWritten(nil, g.Node.Applied())}, nil
}

// append appends the header of the answer to OpLevel.
func (l Level) append(dst []byte) []byte {
	return le.AppendUint32(le.AppendUint32(append(dst, Version, 0, 0, 0), l.Group), l.Knows)
}

// ReadLevel reads the header of an answer to OpLevel.
func ReadLevel(header []byte) (l Level, err error) {
	r := &reader{b: header}
	r.version(3)
	l.Group, l.Knows = r.u32(), r.u32()
	return l, r.end()
}

// level says which level the group has, and which ones this process knows.
func (s *Server) level(_ context.Context, g *Group, r *wire.Incoming) (wire.Answer, error) {
	b := reader{b: r.Header}
	b.version(0)
	if err := b.end(); err != nil {
		return wire.Answer{}, err
	}
	return wire.Answer{Header: Level{Group: g.Node.Level(), Knows: g.Node.Knows()}.append(nil)}, nil
}
