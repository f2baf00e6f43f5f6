package osdwire

import (
	"context"
	"errors"
	"fmt"

	"openvstorage/alba/osd"
	"openvstorage/internal/wire"

	"github.com/google/uuid"
)

// ServerOptions are for NewServer. Open and Admit must be given.
type ServerOptions struct {
	// Open returns the OSD of a UUID, or false if this process does not serve it. It is asked
	// for each request, and must not block.
	Open func(id uuid.UUID) (osd.OSD, bool)
	// Admit decides whether a peer may use an OSD at all, and which operations of it: Writes tells
	// these apart, OpName names them. Its error is told to the peer. Without Admit nobody may, and
	// without may nothing.
	Admit func(ctx context.Context, p *wire.Peer, id uuid.UUID) (may func(op uint16) error, err error)

	Held int64 // bytes of applies and reads that are longer than a request, of all connections; default 256 MiB
	Each int64 // of these, of the connections of one host; default half of Held
	Pool *wire.Pool
}

// Server answers for OSDs. Its Service is for a wire.Server. Safe for concurrent use.
type Server struct {
	o    ServerOptions
	held *holds
}

// NewServer makes a server of OSDs, which belong to the caller.
func NewServer(o ServerOptions) *Server {
	if o.Held == 0 {
		o.Held = 256 << 20
	}
	if o.Each == 0 {
		o.Each = o.Held / 2
	}
	if o.Pool == nil {
		o.Pool = wire.NewPool(0, 64<<20)
	}
	return &Server{o: o, held: newHolds(o.Held, o.Each)}
}

// connection is what the server knows of one.
type connection struct {
	id   uuid.UUID
	peer uuid.UUID // the host that has it, zero if that is not known
	may  func(op uint16) error
}

// Service is what a wire.Server offers as Service.
func (s *Server) Service() wire.Service {
	return wire.Service{
		Handler: wire.HandlerFunc(s.serve),
		Life: func(group string) (life uint64, ok bool) {
			id, err := uuid.Parse(group)
			if err != nil || id.String() != group {
				return 0, false
			}
			_, ok = s.o.Open(id)
			return 0, ok
		},
		Admit: s.admit,
	}
}

func (s *Server) admit(ctx context.Context, p *wire.Peer) error {
	id, err := uuid.Parse(p.Group)
	if err != nil {
		return fmt.Errorf("%w: %q is no OSD", wire.ErrGroup, p.Group)
	}
	if s.o.Admit == nil {
		return fmt.Errorf("OSD %s: nobody has said who may use it", id)
	}
	c := &connection{id: id, peer: p.Host}
	if c.may, err = s.o.Admit(ctx, p, id); err != nil {
		return err
	}
	if c.may == nil {
		return fmt.Errorf("OSD %s: nobody has said what may be done with it", id)
	}
	p.Value = c
	return nil
}

func (s *Server) serve(ctx context.Context, r *wire.Incoming) wire.Answer {
	c := r.Peer.Value.(*connection)
	if err := c.may(r.Op); err != nil {
		return wire.Answer{Status: uint16(wire.CodeDenied), Header: []byte(words(err))}
	}
	o, ok := s.o.Open(c.id)
	if !ok {
		return failed(fmt.Errorf("%w: OSD %s is not served here any more", osd.ErrClosed, c.id))
	}
	var a wire.Answer
	var err error
	switch r.Op {
	case opApply:
		err = s.apply(ctx, o, c, r)
	case opRead:
		a, err = s.read(ctx, o, r)
	case opStat:
		a, err = stat(ctx, o, r)
	case opRange:
		a, err = keyRange(ctx, o, r)
	case opVerify:
		a, err = verify(ctx, o, r)
	case opUsage:
		a, err = usage(ctx, o)
	case opHold:
		err = s.hold(c, r)
	case opFetch:
		a, err = s.fetch(ctx, o, c, r)
	default:
		return wire.Answer{Status: uint16(wire.CodeUnknownOp)}
	}
	if err != nil {
		a.Body.Release()
		return failed(err)
	}
	return a
}

func (s *Server) apply(ctx context.Context, o osd.OSD, c *connection, r *wire.Incoming) error {
	h := read(r.Header)
	number := h.U64()
	if err := h.End(); err != nil {
		return err
	}
	body := r.Body
	if number != 0 {
		whole, err := s.held.take(c, number)
		if err != nil {
			return err
		}
		defer whole.release()
		if body, err = whole.all(); err != nil {
			return err
		}
	}
	asserts, updates, err := decodeApply(body)
	if err != nil {
		return err
	}
	return o.Apply(ctx, asserts, updates)
}

// hold keeps a part of an apply.
func (s *Server) hold(c *connection, r *wire.Incoming) error {
	h := read(r.Header)
	number, size, at := h.U64(), h.U32(), h.U32()
	if err := h.End(); err != nil {
		return err
	}
	if size > applyMost || number == 0 {
		return fmt.Errorf("%w: an apply of %d bytes, at most %d may be", osd.ErrInvalid, size, applyMost)
	}
	return s.held.put(c, number, int(size), int(at), r.Body)
}

// read reads a range into one answer.
func (s *Server) read(ctx context.Context, o osd.OSD, r *wire.Incoming) (wire.Answer, error) {
	h := read(r.Header)
	off, n, key := h.U32(), int(h.U32()), h.key()
	if err := h.End(); err != nil {
		return wire.Answer{}, err
	}
	size, err := readSize(n)
	if err != nil {
		return wire.Answer{}, err
	}
	if size > wire.BodyMax {
		return wire.Answer{}, fmt.Errorf("%w: a read of %d bytes is no single request", osd.ErrInvalid, n)
	}
	b := s.o.Pool.Get(size)
	if b == nil {
		return wire.Answer{}, errNoRoom
	}
	return wire.Answer{Body: b, Sum: true}, readInto(ctx, o, key, off, n, b.Bytes())
}

// readSize is how many bytes the answer of a read has.
func readSize(n int) (int, error) {
	if n < 0 || n > osd.ValueMax {
		return 0, fmt.Errorf("%w: a read of %d bytes, a value has at most %d", osd.ErrInvalid, n, osd.ValueMax)
	}
	return 4*osd.Blocks(n) + n, nil
}

// readInto fills b with checksums and bytes of a range.
func readInto(ctx context.Context, o osd.OSD, key []byte, off uint32, n int, b []byte) error {
	crcs := make([]uint32, osd.Blocks(n))
	if err := o.Read(ctx, key, off, b[4*len(crcs):], crcs); err != nil {
		return err
	}
	appendCRCs(b[:0], crcs)
	return nil
}

// fetch returns a part of a long read. The first part reads all of it.
func (s *Server) fetch(ctx context.Context, o osd.OSD, c *connection, r *wire.Incoming) (a wire.Answer, err error) {
	h := read(r.Header)
	number, off, n, key, from, part := h.U64(), h.U32(), int(h.U32()), h.key(), int(h.U32()), int(h.U32())
	if err := h.End(); err != nil {
		return a, err
	}
	size, err := readSize(n)
	if err != nil {
		return a, err
	}
	if number == 0 || part < 1 || part > wire.BodyMax || from > size-part {
		return a, fmt.Errorf("%w: bytes %d to %d of a read of %d", osd.ErrInvalid, from, from+part, size)
	}
	var whole *hold
	if from == 0 {
		if whole, err = s.held.begin(c, size); err != nil {
			return a, err
		}
		if err = readInto(ctx, o, key, off, n, whole.b); err != nil {
			whole.release()
			return a, err
		}
		whole.got = size
	} else if whole, err = s.held.take(c, number); err != nil {
		return a, err
	}
	if whole.got != size {
		whole.release()
		return a, fmt.Errorf("%w: %d bytes are held under number %d, not the %d of this read", osd.ErrInvalid, whole.got, number, size)
	}
	// The answer refers to what is held, which is let go of when the last part has left.
	if from+part == size {
		a.Body = wire.Wrap(whole.release, whole.b[from:])
	} else {
		b := s.o.Pool.Get(part)
		if b == nil {
			whole.release()
			return a, errNoRoom
		}
		copy(b.Bytes(), whole.b[from:from+part])
		a.Body = b
		if err := s.held.back(c, number, whole); err != nil {
			return a, err
		}
	}
	a.Sum = true
	return a, nil
}

func stat(ctx context.Context, o osd.OSD, r *wire.Incoming) (a wire.Answer, err error) {
	keys, err := decodeKeys(r.Header, r.Body)
	if err != nil {
		return a, err
	}
	infos, err := o.Stat(ctx, keys)
	if err != nil {
		return a, err
	}
	return infosAnswer(infos)
}

func infosAnswer(infos []osd.Info) (a wire.Answer, err error) {
	if len(infos) > osd.RangeMax {
		return a, fmt.Errorf("%w: %d infos, at most %d may be", osd.ErrInvalid, len(infos), osd.RangeMax)
	}
	return wire.Answer{Header: le.AppendUint32(nil, uint32(len(infos))), Body: wire.Wrap(nil, appendInfos(nil, infos)), Sum: true}, nil
}

func keyRange(ctx context.Context, o osd.OSD, r *wire.Incoming) (a wire.Answer, err error) {
	h := read(r.Header)
	limit, ends, first, last := h.U32(), h.Flag(), h.key(), h.key()
	if err := h.End(); err != nil {
		return a, err
	}
	if !ends {
		last = nil
	}
	if limit > osd.RangeMax+1 { // as much too many as any
		limit = osd.RangeMax + 1
	}
	infos, err := o.Range(ctx, first, last, int(limit))
	if err != nil {
		return a, err
	}
	return infosAnswer(infos)
}

func verify(ctx context.Context, o osd.OSD, r *wire.Incoming) (a wire.Answer, err error) {
	h := read(r.Header)
	limit, after := h.U32(), h.key()
	if err := h.End(); err != nil {
		return a, err
	}
	if len(after) == 0 {
		after = nil
	}
	bad, next, err := o.Verify(ctx, after, int(min(limit, osd.RangeMax+1)))
	if err != nil {
		return a, err
	}
	header := appendKey(appendFlag(le.AppendUint32(nil, uint32(len(bad))), next != nil), next)
	body := appendBad(nil, bad)
	if len(body) > wire.BodyMax {
		return a, errors.New("more is bad than an answer holds: verify fewer values at a time")
	}
	return wire.Answer{Header: header, Body: wire.Wrap(nil, body), Sum: true}, nil
}

func usage(ctx context.Context, o osd.OSD) (a wire.Answer, err error) {
	u, err := o.Usage(ctx)
	if err != nil {
		return a, err
	}
	return wire.Answer{Header: appendUsage(nil, u)}, nil
}
