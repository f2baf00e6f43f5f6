// Package nbdclient is a small NBD client: one connection, any number of
// requests in flight up to a bound. It serves tests, benchmarks and tools that
// must know exactly which requests were answered before a connection broke.
package nbdclient

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"sync"

	"openvstorage/nbd"
)

// Options of a Client. The zero value asks for everything that the server has.
type Options struct {
	Export   string
	Simple   bool // do not ask for structured replies, thus for no metadata
	InFlight int  // most requests at once; default 256
}

// ErrClosed is the error of requests on a client that was closed.
var ErrClosed = errors.New("nbdclient: connection closed")

// Extent is a run of bytes of one allocation status.
type Extent = nbd.Extent

// Request is one command. The client uses it and its Data from Start until
// Done is called or Do returns; then it may be used again.
type Request struct {
	Type   nbd.Command
	Flags  nbd.CommandFlags
	Offset uint64
	Length uint32 // of commands without Data
	Data   []byte // payload of a write, destination of a read: has their length

	// Done is called once, from the goroutine that receives or from Start's
	// caller; it must not block. Do sets its own.
	Done func(*Request)

	Err     error    // an nbd.Errno, wrapped with the server's message, or why the connection broke
	Extents []Extent // of BLOCK_STATUS, appended to

	got uint32 // bytes of a read received
	chn chan struct{}
}

// Client is an open connection in the transmission phase. Its methods are safe
// for concurrent use.
type Client struct {
	conn  net.Conn
	size  int64
	flags nbd.TransmissionFlags
	meta  bool
	recvd chan struct{} // closed when the receiver has ended

	send struct {
		sync.Mutex
		head []byte
		vecs net.Buffers
		raw  [][]byte
	}
	mu struct {
		sync.Mutex
		err   error
		slots []*Request // by cookie
		free  []uint64   // cookies
		room  sync.Cond
	}
}

// Dial connects to network ("unix", "tcp") and address and opens the export.
func Dial(ctx context.Context, network, address string, opts Options) (*Client, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, network, address)
	if err != nil {
		return nil, fmt.Errorf("nbdclient: %w", err)
	}
	return New(ctx, conn, opts)
}

// New opens an export on a connection, which it closes on any error.
func New(ctx context.Context, conn net.Conn, opts Options) (*Client, error) {
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	c, err := open(conn, opts)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("nbdclient: open export %q: %w", opts.Export, err)
	}
	go c.receive()
	return c, nil
}

func open(conn net.Conn, opts Options) (*Client, error) {
	n := opts.InFlight
	if n == 0 {
		n = 256
	}
	c := &Client{conn: conn, recvd: make(chan struct{})}
	c.mu.room.L = &c.mu.Mutex
	c.mu.slots = make([]*Request, n)
	for i := range n {
		c.mu.free = append(c.mu.free, uint64(n-1-i))
	}
	h := NewHandshake(conn)
	if err := h.Start(nbd.FlagFixedNewstyle | nbd.FlagNoZeroes); err != nil {
		return nil, err
	}
	if !opts.Simple {
		ok, err := h.StructuredReply()
		if err != nil {
			return nil, err
		}
		if ok {
			if c.meta, err = h.SetMetaContext(opts.Export, nbd.BaseAllocation); err != nil {
				return nil, err
			}
		}
	}
	info, err := h.Go(opts.Export)
	if err != nil {
		return nil, err
	}
	c.size, c.flags = info.Size, info.Flags
	return c, nil
}

// Size is the size of the export in bytes when it was opened.
func (c *Client) Size() int64 { return c.size }

// Flags are the transmission flags of the export.
func (c *Client) Flags() nbd.TransmissionFlags { return c.flags }

// HasExtents tells whether BLOCK_STATUS can be used.
func (c *Client) HasExtents() bool { return c.meta }

// Close says goodbye and closes the connection. Requests in flight get
// ErrClosed.
func (c *Client) Close() error {
	c.send.Lock()
	_, err := c.conn.Write(nbd.AppendRequest(nil, nbd.Request{Type: nbd.CmdDisc}))
	c.send.Unlock()
	c.fail(ErrClosed)
	<-c.recvd
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// Abort closes the connection without a word, as a killed client does.
func (c *Client) Abort() {
	c.fail(ErrClosed)
	<-c.recvd
}

// Conn is the connection itself, to send broken bytes on. What is read from it
// is lost to the client.
func (c *Client) Conn() net.Conn { return c.conn }

// Do runs a request and returns its error. A connection that breaks ends it.
func (c *Client) Do(r *Request) error {
	if r.chn == nil {
		r.chn = make(chan struct{}, 1)
	}
	r.Done = wake
	c.Start(r)
	<-r.chn
	return r.Err
}

func wake(r *Request) { r.chn <- struct{}{} }

// Start sends requests with one system call and does not wait for their
// replies, but for places if there are too many in flight. Of a broken
// connection Done tells, as of any error.
func (c *Client) Start(rs ...*Request) {
	c.send.Lock()
	defer c.send.Unlock()
	for len(rs) > 0 {
		n := min(len(rs), len(c.mu.slots))
		c.start(rs[:n])
		rs = rs[n:]
	}
}

// start sends at most as many requests as there are places.
func (c *Client) start(rs []*Request) {
	c.send.head, c.send.raw = c.send.head[:0], c.send.raw[:0]
	c.mu.Lock()
	for len(c.mu.free) < len(rs) && c.mu.err == nil {
		c.mu.room.Wait()
	}
	if err := c.mu.err; err != nil {
		c.mu.Unlock()
		for _, r := range rs {
			r.Err = err
			r.Done(r)
		}
		return
	}
	for _, r := range rs {
		last := len(c.mu.free) - 1
		cookie := c.mu.free[last]
		c.mu.free = c.mu.free[:last]
		c.mu.slots[cookie] = r
		r.Err, r.Extents, r.got = nil, r.Extents[:0], 0
		length := r.Length
		if r.Type == nbd.CmdRead || r.Type == nbd.CmdWrite {
			length = uint32(len(r.Data))
		}
		c.send.head = nbd.AppendRequest(c.send.head, nbd.Request{
			Flags: r.Flags, Type: r.Type, Cookie: cookie, Offset: r.Offset, Length: length,
		})
	}
	c.mu.Unlock()
	head, from := c.send.head, 0
	for i, r := range rs {
		if r.Type == nbd.CmdWrite {
			end := (i + 1) * nbd.RequestLen
			c.send.raw = append(c.send.raw, head[from:end], r.Data)
			from = end
		}
	}
	if from < len(head) {
		c.send.raw = append(c.send.raw, head[from:])
	}
	c.send.vecs = c.send.raw
	if _, err := c.send.vecs.WriteTo(c.conn); err != nil {
		c.fail(err)
	}
}

// receive completes requests until the connection ends.
func (c *Client) receive() {
	defer close(c.recvd)
	in := bufio.NewReaderSize(c.conn, 128<<10)
	for {
		if err := c.receiveOne(in); err != nil {
			c.fail(fmt.Errorf("nbdclient: receive: %w", err))
			break
		}
	}
	// Nobody uses the requests' memory any more: give them back.
	c.mu.Lock()
	err := c.mu.err
	var lost []*Request
	for i, r := range c.mu.slots {
		if r != nil {
			lost = append(lost, r)
			c.mu.slots[i] = nil
		}
	}
	c.mu.Unlock()
	for _, r := range lost {
		r.Err = err
		r.Done(r)
	}
}

// fail breaks the connection; the receiver ends the requests in flight.
func (c *Client) fail(err error) {
	c.mu.Lock()
	if c.mu.err == nil {
		c.mu.err = err
		c.mu.room.Broadcast()
	}
	c.mu.Unlock()
	c.conn.Close()
}

// find returns the request of a cookie.
func (c *Client) find(cookie uint64) (*Request, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if cookie >= uint64(len(c.mu.slots)) || c.mu.slots[cookie] == nil {
		return nil, fmt.Errorf("reply to no request: cookie %#x", cookie)
	}
	return c.mu.slots[cookie], nil
}

// complete frees the cookie, then tells.
func (c *Client) complete(cookie uint64, r *Request) {
	c.mu.Lock()
	c.mu.slots[cookie] = nil
	c.mu.free = append(c.mu.free, cookie)
	c.mu.room.Signal()
	c.mu.Unlock()
	r.Done(r)
}

// ReadAt reads len(p) bytes.
func (c *Client) ReadAt(p []byte, off int64) (int, error) {
	if err := c.Do(&Request{Type: nbd.CmdRead, Offset: uint64(off), Data: p}); err != nil {
		return 0, err
	}
	return len(p), nil
}

// WriteAt writes p.
func (c *Client) WriteAt(p []byte, off int64) (int, error) {
	if err := c.Do(&Request{Type: nbd.CmdWrite, Offset: uint64(off), Data: p}); err != nil {
		return 0, err
	}
	return len(p), nil
}

// Flush makes all writes that were answered durable.
func (c *Client) Flush() error { return c.Do(&Request{Type: nbd.CmdFlush}) }

// Trim gives a range back.
func (c *Client) Trim(off int64, n uint32) error {
	return c.Do(&Request{Type: nbd.CmdTrim, Offset: uint64(off), Length: n})
}

// Zero makes a range read as zeros; flags may hold nbd.FlagNoHole.
func (c *Client) Zero(off int64, n uint32, flags nbd.CommandFlags) error {
	return c.Do(&Request{Type: nbd.CmdWriteZeroes, Flags: flags, Offset: uint64(off), Length: n})
}

// BlockStatus returns the first extents of a range; there may be more.
func (c *Client) BlockStatus(off int64, n uint32) ([]Extent, error) {
	r := &Request{Type: nbd.CmdBlockStatus, Offset: uint64(off), Length: n}
	err := c.Do(r)
	return r.Extents, err
}
