package osdwire

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"openvstorage/alba/osd"
	"openvstorage/internal/wire"

	"github.com/google/uuid"
)

// Options are for NewClient. ID and Target must be given.
type Options struct {
	ID uuid.UUID // of the OSD
	// Target says where the OSD is and as whom to connect; Service and Group are the client's.
	// It is asked before each attempt to connect.
	Target   func(ctx context.Context) (wire.DialOptions, error)
	Priority wire.Priority // of all that is asked by this client; default wire.Client
	// First and Most are the first and the longest wait between two attempts to connect; 50 ms
	// and 1 s.
	First, Most time.Duration
	Up          func()      // told of each connection that came; must not block
	Down        func(error) // of each attempt that failed, and each connection that went; must not block
}

// Client is an OSD in another process. It keeps one connection up, by which all calls go at the
// same time. While there is none, calls fail at once with osd.ErrUnreachable.
type Client struct {
	o       Options
	wire    *wire.Redialer
	numbers atomic.Uint64 // of what the server holds
}

var _ osd.OSD = (*Client)(nil)

// NewClient begins to connect.
func NewClient(o Options) (*Client, error) {
	if o.ID == uuid.Nil || o.Target == nil {
		return nil, errors.New("osdwire: Options.ID and Target must be given")
	}
	if o.First == 0 {
		o.First = 50 * time.Millisecond
	}
	if o.Most == 0 {
		o.Most = max(time.Second, o.First)
	}
	r := wire.RedialOptions{First: o.First, Most: o.Most, Down: o.Down, Target: func(ctx context.Context) (wire.DialOptions, error) {
		d, err := o.Target(ctx)
		d.Service, d.Group = Service, o.ID.String()
		return d, err
	}}
	if o.Up != nil {
		r.Up = func(*wire.Conn) { o.Up() }
	}
	w, err := wire.NewRedialer(r)
	if err != nil {
		return nil, fmt.Errorf("osdwire: OSD %s: %w", o.ID, err)
	}
	return &Client{o: o, wire: w}, nil
}

// Close ends the connection. Calls that are under way fail.
func (c *Client) Close() error {
	c.wire.Close()
	return nil
}

// Ready waits for a connection, and says why there is none when ctx ends.
func (c *Client) Ready(ctx context.Context) error {
	reply, err := c.wire.CallWait(ctx, wire.Request{Op: opUsage, Priority: c.o.Priority})
	if err == nil {
		reply.Release()
		return nil
	}
	if _, why := c.wire.Conn(); why != nil {
		err = fmt.Errorf("%w: %w", err, why)
	}
	return c.failed(opUsage, err)
}

// ID implements osd.OSD.
func (c *Client) ID() uuid.UUID { return c.o.ID }

// failed is the error of a call that has no answer.
func (c *Client) failed(op uint16, err error) error {
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
	case errors.Is(err, wire.ErrNotSent) && errors.Is(err, wire.ErrBusy):
		err = fmt.Errorf("%w: %w", osd.ErrBusy, err)
	case errors.Is(err, wire.ErrNotSent):
		err = fmt.Errorf("%w: %w", osd.ErrUnreachable, err)
	case errors.Is(err, wire.ErrOutcomeUnknown):
		err = fmt.Errorf("%w: %w", osd.ErrCut, err)
	}
	return fmt.Errorf("%s of OSD %s: %w", OpName(op), c.o.ID, err)
}

// call asks. The caller releases the reply.
func (c *Client) call(ctx context.Context, op uint16, header []byte, body *wire.Buffer) (*wire.Reply, error) {
	reply, err := c.wire.Call(ctx, wire.Request{Op: op, Priority: c.o.Priority, Header: header, Body: body, Sum: body != nil})
	if err != nil {
		return nil, c.failed(op, err)
	}
	if reply.Status == uint16(wire.CodeOK) {
		return reply, nil
	}
	defer reply.Release()
	return nil, fmt.Errorf("%s of OSD %s: %w", OpName(op), c.o.ID, failure(reply.Status, reply.Header))
}

func (c *Client) invalid(op uint16, format string, args ...any) error {
	return fmt.Errorf("%s of OSD %s: %w: %s", OpName(op), c.o.ID, osd.ErrInvalid, fmt.Sprintf(format, args...))
}

// Apply implements osd.OSD.
func (c *Client) Apply(ctx context.Context, asserts []osd.Assert, updates []osd.Update) error {
	if len(asserts) > osd.UpdatesMax || len(updates) > osd.UpdatesMax {
		return c.invalid(opApply, "%d asserts and %d updates, at most %d of each may be", len(asserts), len(updates), osd.UpdatesMax)
	}
	var meta, size int
	for _, a := range asserts {
		if len(a.Key) > osd.KeyMax || len(a.Value) > osd.BlockSize {
			return c.invalid(opApply, "an assert on a key of %d bytes with a value of %d", len(a.Key), len(a.Value))
		}
		meta += assertLeast + len(a.Key) + len(a.Value)
	}
	for _, u := range updates {
		if len(u.Key) > osd.KeyMax || len(u.Value.Data) > osd.ValueMax || len(u.Value.CRCs) > osd.Blocks(osd.ValueMax) {
			return c.invalid(opApply, "an update of a key of %d bytes with a value of %d bytes and %d checksums", len(u.Key), len(u.Value.Data), len(u.Value.CRCs))
		}
		meta += updateLeast + len(u.Key) + 4*len(u.Value.CRCs)
		size += len(u.Value.Data)
	}
	if size > osd.ApplyMax || 8+meta+size > applyMost {
		return c.invalid(opApply, "values of %d bytes, at most %d may be", size, osd.ApplyMax)
	}
	pieces := make([][]byte, 1, 1+len(updates))
	pieces[0] = appendApply(make([]byte, 0, 8+meta), asserts, updates)
	for _, u := range updates {
		if len(u.Value.Data) > 0 {
			pieces = append(pieces, u.Value.Data)
		}
	}
	if 8+meta+size <= wire.BodyMax {
		return c.send(ctx, opApply, le.AppendUint64(nil, 0), pieces)
	}
	number := c.numbers.Add(1)
	if err := c.hold(ctx, number, 8+meta+size, pieces); err != nil {
		return err
	}
	return c.send(ctx, opApply, le.AppendUint64(nil, number), nil)
}

// send sends pieces of the caller's memory, and returns when the connection has let go of them.
func (c *Client) send(ctx context.Context, op uint16, header []byte, pieces [][]byte) error {
	free := make(chan struct{})
	reply, err := c.call(ctx, op, header, wire.Wrap(func() { close(free) }, pieces...))
	if err == nil {
		reply.Release()
	}
	<-free
	return err
}

// hold has the server put together what is longer than a request.
func (c *Client) hold(ctx context.Context, number uint64, size int, pieces [][]byte) error {
	for at := 0; at < size; {
		var part [][]byte
		n := 0
		for len(pieces) > 0 && n < wire.BodyMax {
			p := pieces[0][:min(len(pieces[0]), wire.BodyMax-n)]
			part = append(part, p)
			n += len(p)
			if pieces[0] = pieces[0][len(p):]; len(pieces[0]) == 0 {
				pieces = pieces[1:]
			}
		}
		header := le.AppendUint32(le.AppendUint32(le.AppendUint64(nil, number), uint32(size)), uint32(at))
		if err := c.send(ctx, opHold, header, part); err != nil {
			return err
		}
		at += n
	}
	return nil
}

// Read implements osd.OSD.
func (c *Client) Read(ctx context.Context, key []byte, off uint32, p []byte, crcs []uint32) error {
	if len(key) > osd.KeyMax || len(p) > osd.ValueMax || len(crcs) != osd.Blocks(len(p)) {
		return c.invalid(opRead, "a key of %d bytes, %d bytes to read and %d checksums", len(key), len(p), len(crcs))
	}
	size := 4*len(crcs) + len(p)
	where := appendKey(le.AppendUint32(le.AppendUint32(nil, off), uint32(len(p))), key)
	if size <= wire.BodyMax {
		reply, err := c.call(ctx, opRead, where, nil)
		if err != nil {
			return err
		}
		defer reply.Release()
		if len(reply.Body) != size {
			return c.malformed(opRead, "%d bytes of %d", len(reply.Body), size)
		}
		getCRCs(crcs, reply.Body)
		copy(p, reply.Body[4*len(crcs):])
		return nil
	}
	return c.fetch(ctx, where, size, p, crcs)
}

// fetch reads what is longer than an answer.
func (c *Client) fetch(ctx context.Context, where []byte, size int, p []byte, crcs []uint32) error {
	head := le.AppendUint64(nil, c.numbers.Add(1))
	sums := make([]byte, 4*len(crcs))
	for at := 0; at < size; {
		n := min(size-at, wire.BodyMax)
		header := append(head[:8:8], where...)
		reply, err := c.call(ctx, opFetch, le.AppendUint32(le.AppendUint32(header, uint32(at)), uint32(n)), nil)
		if err != nil {
			return err
		}
		if len(reply.Body) != n {
			reply.Release()
			return c.malformed(opFetch, "%d bytes of %d", len(reply.Body), n)
		}
		b := reply.Body
		if at < len(sums) {
			b = b[copy(sums[at:], b):]
		}
		copy(p[max(at, len(sums))-len(sums):], b)
		reply.Release()
		at += n
	}
	getCRCs(crcs, sums)
	return nil
}

func (c *Client) malformed(op uint16, format string, args ...any) error {
	return fmt.Errorf("%s of OSD %s: %w answer: %s", OpName(op), c.o.ID, errBytes, fmt.Sprintf(format, args...))
}

// Stat implements osd.OSD.
func (c *Client) Stat(ctx context.Context, keys [][]byte) ([]osd.Info, error) {
	if len(keys) > osd.RangeMax {
		return nil, c.invalid(opStat, "%d keys, at most %d may be", len(keys), osd.RangeMax)
	}
	var body []byte
	for _, k := range keys {
		if len(k) > osd.KeyMax {
			return nil, c.invalid(opStat, "a key of %d bytes", len(k))
		}
		body = appendKey(body, k)
	}
	infos, err := c.infos(ctx, opStat, le.AppendUint32(nil, uint32(len(keys))), wire.Wrap(nil, body))
	if err == nil && len(infos) != len(keys) {
		return nil, c.malformed(opStat, "%d of %d keys", len(infos), len(keys))
	}
	return infos, err
}

func (c *Client) infos(ctx context.Context, op uint16, header []byte, body *wire.Buffer) ([]osd.Info, error) {
	reply, err := c.call(ctx, op, header, body)
	if err != nil {
		return nil, err
	}
	defer reply.Release()
	// One piece of memory for all keys, which are the caller's.
	infos, err := decodeInfos(reply.Header, append([]byte(nil), reply.Body...))
	if err != nil {
		return nil, c.malformed(op, "%v", err)
	}
	return infos, nil
}

// Range implements osd.OSD.
func (c *Client) Range(ctx context.Context, first, last []byte, limit int) ([]osd.Info, error) {
	if limit < 0 || limit > osd.RangeMax || len(first) > osd.KeyMax+1 || len(last) > osd.KeyMax+1 {
		return nil, c.invalid(opRange, "%d keys from one of %d bytes to one of %d", limit, len(first), len(last))
	}
	header := appendFlag(le.AppendUint32(nil, uint32(limit)), last != nil)
	return c.infos(ctx, opRange, appendKey(appendKey(header, first), last), nil)
}

// Verify implements osd.OSD.
func (c *Client) Verify(ctx context.Context, after []byte, limit int) (bad []osd.Bad, next []byte, err error) {
	if limit < 0 || limit > osd.RangeMax || len(after) > osd.KeyMax {
		return nil, nil, c.invalid(opVerify, "%d values behind a key of %d bytes", limit, len(after))
	}
	reply, err := c.call(ctx, opVerify, appendKey(le.AppendUint32(nil, uint32(limit)), after), nil)
	if err != nil {
		return nil, nil, err
	}
	defer reply.Release()
	h := read(reply.Header)
	n, more, key := int(h.U32()), h.Flag(), h.key()
	if err := h.End(); err != nil {
		return nil, nil, c.malformed(opVerify, "%v", err)
	}
	if bad, err = decodeBad(n, reply.Body); err != nil {
		return nil, nil, c.malformed(opVerify, "%v", err)
	}
	if more {
		next = append([]byte{}, key...)
	}
	return bad, next, nil
}

// Usage implements osd.OSD.
func (c *Client) Usage(ctx context.Context) (u osd.Usage, err error) {
	reply, err := c.call(ctx, opUsage, nil, nil)
	if err != nil {
		return u, err
	}
	defer reply.Release()
	if u, err = decodeUsage(reply.Header); err != nil {
		return osd.Usage{}, c.malformed(opUsage, "%v", err)
	}
	return u, nil
}
