package kv

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"openvstorage/arakoon"
	"openvstorage/internal/wire"
)

// begin makes sure that a read of the store as it is now sees what c promises, and takes a
// place among those that touch the store. The wait for other members comes before the
// place, so that reads which wait for a majority keep nobody from reading locally.
func (s *Server) begin(ctx context.Context, g *Group, c arakoon.Consistency) (revision uint64, err error) {
	if c != arakoon.Local {
		if err := s.settle(ctx, g, c); err != nil {
			return 0, err
		}
	}
	select {
	case s.slots <- struct{}{}:
	default:
		select {
		case s.slots <- struct{}{}:
		case <-ctx.Done():
			return 0, fmt.Errorf("%w: no read was begun: all %d places are taken", ctx.Err(), cap(s.slots))
		}
	}
	if held := s.held.Load(); held > s.o.Answers {
		s.end()
		return 0, fmt.Errorf("%w: %d bytes of answers are on their way out", arakoon.ErrBusy, held)
	}
	return g.Node.Applied(), nil
}

func (s *Server) end() { <-s.slots }

// settle waits until a local read sees what c promises.
func (s *Server) settle(ctx context.Context, g *Group, c arakoon.Consistency) error {
	index := c.Index()
	if index == 0 {
		_, err := g.Node.MultiGet(ctx, c)
		return err
	}
	short, stop := context.WithTimeout(ctx, s.o.AtLeast)
	defer stop()
	_, err := g.Node.MultiGet(short, c)
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		return fmt.Errorf("%w: this member has applied revision %d, not %d", ErrInconsistent, g.Node.Applied(), index)
	}
	return err
}

// body is a body that counts as an answer on its way out until it has left.
func (s *Server) body(b []byte) *wire.Buffer {
	if len(b) == 0 {
		return nil
	}
	size := int64(len(b))
	s.held.Add(size)
	return wire.Wrap(func() { s.held.Add(-size) }, b)
}

func answer(a *Answer, body *wire.Buffer) wire.Answer {
	return wire.Answer{Header: appendAnswer(make([]byte, 0, answerHead), a), Body: body, Sum: true}
}

// keyed reads the head of a request for one key.
func keyed(r *wire.Incoming) (c arakoon.Consistency, key []byte, err error) {
	b := reader{b: r.Header}
	c = b.consistency()
	if (c == arakoon.Local) != (r.Op == OpGetLocal || r.Op == OpExistsLocal) {
		b.fail("another consistency than that of operation %s", OpName(r.Op))
	}
	return c, b.rest(), b.err
}

func (s *Server) get(ctx context.Context, g *Group, r *wire.Incoming) (wire.Answer, error) {
	value, revision, err := s.value(ctx, g, r)
	if err != nil {
		return wire.Answer{}, err
	}
	return answer(&Answer{Revision: revision}, s.body(value)), nil
}

func (s *Server) exists(ctx context.Context, g *Group, r *wire.Incoming) (wire.Answer, error) {
	_, revision, err := s.value(ctx, g, r)
	var absent *arakoon.ErrNotFound
	if err != nil && !errors.As(err, &absent) {
		return wire.Answer{}, err
	}
	return answer(&Answer{Revision: revision, Exists: err == nil}, nil), nil
}

func (s *Server) value(ctx context.Context, g *Group, r *wire.Incoming) (value []byte, revision uint64, err error) {
	c, key, err := keyed(r)
	if err != nil {
		return nil, 0, err
	}
	if revision, err = s.begin(ctx, g, c); err != nil {
		return nil, 0, err
	}
	defer s.end()
	began := time.Now()
	value, err = g.Node.Get(ctx, arakoon.Local, key)
	s.pace.note(time.Since(began))
	return value, revision, err
}

func (s *Server) multiGet(ctx context.Context, g *Group, r *wire.Incoming) (wire.Answer, error) {
	b := reader{b: r.Header}
	c, count := b.consistency(), b.u32()
	if err := b.end(); err != nil {
		return wire.Answer{}, err
	}
	keys, err := readKeys(count, r.Body)
	if err != nil {
		return wire.Answer{}, err
	}
	revision, err := s.begin(ctx, g, c)
	if err != nil {
		return wire.Answer{}, err
	}
	defer s.end()
	values, err := g.Node.MultiGet(ctx, arakoon.Local, keys...)
	if err != nil {
		return wire.Answer{}, err
	}
	size := 0
	for _, v := range values {
		size += 5 + len(v)
	}
	out := make([]byte, 0, size)
	for _, v := range values {
		out = appendOption(out, v)
	}
	return answer(&Answer{Revision: revision}, s.body(out)), nil
}

// scan answers with one page of a range, as it is at one moment. An entry goes into a page
// as long as the page is not full, so that one always fits.
func (s *Server) scan(ctx context.Context, g *Group, r *wire.Incoming) (wire.Answer, error) {
	b := reader{b: r.Header}
	c, q := b.consistency(), b.scan()
	if q.Bytes > PageMax {
		b.fail("a page of %d bytes; at most %d may be", q.Bytes, PageMax)
	}
	if err := b.end(); err != nil {
		return wire.Answer{}, err
	}
	if q.Bytes == 0 {
		q.Bytes = PageSize
	}
	revision, err := s.begin(ctx, g, c)
	if err != nil {
		return wire.Answer{}, err
	}
	defer s.end()
	read := g.Node.Range
	if q.Descending {
		read = g.Node.Reverse
	}
	a := Answer{Revision: revision}
	var page []byte
	keys := uint32(0)
	err = read(ctx, arakoon.Local, q.First, q.Last, 0, func(k, v []byte) bool {
		if len(page) >= int(q.Bytes) || keys == PageKeys || ctx.Err() != nil {
			a.More = true
			return false
		}
		page = appendBytes(page, k)
		if !q.KeysOnly {
			page = appendBytes(page, v)
		}
		keys++
		return keys != q.Limit
	})
	if err := goesOn(ctx, g, &a, err); err != nil {
		return wire.Answer{}, err
	}
	return answer(&a, s.body(page)), nil
}

// goesOn is for a read that has ended with err. If there is more, the client reads it at least
// as of the answer's revision, perhaps at another member. So that must hold all that was seen
// here: what was applied before the read began is not enough, as more was applied until the
// read saw the store.
func goesOn(ctx context.Context, g *Group, a *Answer, err error) error {
	if err == nil {
		err = ctx.Err()
	}
	if err != nil || !a.More {
		return err
	}
	seen, err := g.Node.Visible()
	a.Revision = max(a.Revision, seen)
	return err
}

// count counts keys, up to CountMax of them: a longer count would hold its place for
// seconds.
func (s *Server) count(ctx context.Context, g *Group, r *wire.Incoming) (wire.Answer, error) {
	b := reader{b: r.Header}
	c, first, last := b.consistency(), b.bytes(), b.option()
	if err := b.end(); err != nil {
		return wire.Answer{}, err
	}
	revision, err := s.begin(ctx, g, c)
	if err != nil {
		return wire.Answer{}, err
	}
	defer s.end()
	a := Answer{Revision: revision}
	number := uint64(0)
	var next []byte
	err = g.Node.Range(ctx, arakoon.Local, first, last, 0, func(k, _ []byte) bool {
		if number == CountMax || number%1024 == 1023 && ctx.Err() != nil {
			a.More, next = true, bytes.Clone(k)
			return false
		}
		number++
		return true
	})
	if err := goesOn(ctx, g, &a, err); err != nil {
		return wire.Answer{}, err
	}
	header := le.AppendUint64(appendAnswer(nil, &a), number)
	return wire.Answer{Header: append(header, next...)}, nil
}

// settled reads nothing: it tells that a read would have been answered, so that a majority
// is there.
func (s *Server) settled(ctx context.Context, g *Group, r *wire.Incoming) (wire.Answer, error) {
	b := reader{b: r.Header}
	c := b.consistency()
	err := b.end()
	if err == nil {
		err = s.settle(ctx, g, c)
	}
	if err != nil {
		return wire.Answer{}, err
	}
	return answer(&Answer{Revision: g.Node.Applied()}, nil), nil
}
