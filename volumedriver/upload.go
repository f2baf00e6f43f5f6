package volumedriver

import (
	"context"
	"errors"

	"openvstorage/backend"
	"openvstorage/sco"
	"openvstorage/writebuffer"
)

// landing is how the upload of an SCO ended.
type landing struct {
	number sco.Number
	size   int64 // of the object; 0 if there is none
	err    error
}

// launch begins to upload what the group needs of an SCO, if it needs anything. The upload
// runs in a goroutine of its own, and ends in g.landed.
func (st *storer) launch(ctx context.Context, g *group, s *writebuffer.SCO) {
	if marks, ok := g.marks[s.Number]; ok && !s.Empty() && marks.Count() == 0 {
		return
	}
	g.flying++
	go func() {
		l := landing{number: s.Number}
		if s.Empty() {
			l.err = s.Sync() // before it may be evicted
		} else {
			l.size, l.err = st.uploadSCO(ctx, g, s)
		}
		g.landed <- l
	}()
}

// land waits for an upload to end.
func (st *storer) land(g *group) error {
	l := <-g.landed
	g.flying--
	if l.size > 0 {
		st.gc.noteStored(l.number, l.size)
	}
	return l.err
}

// landAll waits for all uploads of a group, which may be nil, to end.
func (st *storer) landAll(g *group) (err error) {
	for g != nil && g.flying > 0 {
		err = errors.Join(err, st.land(g))
	}
	return err
}

// uploadSCO puts what the group needs of an SCO.
func (st *storer) uploadSCO(ctx context.Context, g *group, s *writebuffer.SCO) (size int64, err error) {
	buf, err := st.host.uploads.take(ctx)
	if err != nil {
		return 0, err
	}
	defer func() { st.host.uploads.give(buf) }()
	data, err := s.Object(buf, g.marks[s.Number])
	if err != nil {
		if errors.Is(err, sco.ErrCorrupt) {
			st.halt(err) // P2: nothing bad is ever stored under a new checksum
		}
		return 0, err
	}
	buf = data[:0]
	if len(data) == 0 {
		return 0, nil
	}
	err = st.namespace().Put(ctx, s.Number.Name(), data)
	if errors.Is(err, backend.ErrExists) {
		err = st.putAgain(ctx, s, data)
	}
	if err != nil {
		return 0, err
	}
	st.count.uploaded.Add(uint64(len(data)))
	return int64(len(data)), nil
}

// putAgain replaces the object that an earlier attempt left of an SCO which the catalog
// does not name yet: the attempt chose other clusters as live, which gives other bytes. An
// object that was not made of this SCO halts the vDisk (O6).
func (st *storer) putAgain(ctx context.Context, s *writebuffer.SCO, data []byte) error {
	name := s.Number.Name()
	head := make([]byte, sco.HeaderSize)
	if err := get(ctx, st.namespace(), name, head, 0); err != nil {
		return err
	}
	if s.SameFile(head) {
		err := st.cat.holding(ctx, func(ctx context.Context, _ *flight) error { return st.cat.deleteLocked(ctx, []string{name}) })
		if err != nil {
			return err
		}
		st.host.sums.forget(st.id, s.Number)
	}
	return st.putObject(ctx, name, data)
}
