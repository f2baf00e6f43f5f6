// Package nbdclient is a small NBD client: one connection, with a bounded number of requests in
// flight. It is for tests, benchmarks and tools that must know exactly which requests were answered
// before a connection broke.
package nbdclient

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"

	"openvstorage/device"
	"openvstorage/nbd"
)

// Options of a Client. The zero value asks for everything that the server has.
type Options struct {
	Export   string
	Simple   bool // do not ask for structured replies, thus for no metadata
	Compact  bool // do not ask for extended headers
	InFlight int  // most requests at once; default 256

	// TLS, if set, is used, or else there is no connection. Dial fills in ServerName
	// from the address of TCP. The client speaks TLS 1.3 and nothing older.
	TLS *tls.Config
}

// ErrClosed is the error of requests on a client that was closed.
var ErrClosed = errors.New("nbdclient: connection closed")

// Extent is a run of bytes of one allocation status.
type Extent = device.Extent

// Request is one command. The client uses it and its Data until Done is called or Do returns. After
// that the caller may use it again.
type Request struct {
	Type   nbd.Command
	Flags  nbd.CommandFlags
	Offset uint64
	Length uint64 // of commands without Data; from 4 GiB on it needs extended headers
	Data   []byte // payload of a write, destination of a read: has their length

	// Done is called once, by the goroutine that receives or by Start. It must not block.
	// Do replaces it.
	Done func(*Request)

	// Contexts, if set, are the context ids that a BLOCK_STATUS asks for. They are its
	// payload, which needs a server with nbd.BlockStatusPayload.
	Contexts []uint32

	Err     error    // an nbd.Errno, wrapped with the server's message, or why the connection broke
	Extents []Extent // of BLOCK_STATUS, appended to

	got uint64 // bytes of a read received
	chn chan struct{}
}

// Client is an open connection in the transmission phase. Its methods are safe
// for concurrent use.
type Client struct {
	conn     net.Conn // by TLS, if that is used
	wire     net.Conn // below it
	size     int64
	flags    nbd.TransmissionFlags
	extended bool
	meta     bool
	recvd    chan struct{} // closed when the receiver has ended

	send struct {
		sync.Mutex
		head []byte
		ends []int // of each request in head
		vecs net.Buffers
		raw  [][]byte

		records *bufio.Writer // of TLS, or nil
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
	if opts.TLS != nil && opts.TLS.ServerName == "" && network != "unix" {
		opts.TLS = opts.TLS.Clone()
		opts.TLS.ServerName = hostOf(address)
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
	c := &Client{conn: conn, wire: conn, recvd: make(chan struct{})}
	c.mu.room.L = &c.mu.Mutex
	c.mu.slots = make([]*Request, n)
	for i := range n {
		c.mu.free = append(c.mu.free, uint64(n-1-i))
	}
	h := NewHandshake(conn)
	if err := h.Start(nbd.FlagFixedNewstyle | nbd.FlagNoZeroes); err != nil {
		return nil, err
	}
	if err := c.secure(h, opts); err != nil {
		return nil, err
	}
	if !opts.Simple {
		ok, err := false, error(nil)
		if !opts.Compact {
			ok, err = h.ExtendedHeaders()
			c.extended = ok
		}
		if !ok && err == nil {
			ok, err = h.StructuredReply()
		}
		if ok {
			c.meta, err = h.SetMetaContext(opts.Export, nbd.BaseAllocation)
		}
		if err != nil {
			return nil, err
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

// Extended tells whether extended headers are in use, and with them lengths of 4 GiB and more.
func (c *Client) Extended() bool { return c.extended }

// HasExtents tells whether BLOCK_STATUS can be used.
func (c *Client) HasExtents() bool { return c.meta }

// Close sends a DISC and closes the connection. Requests in flight get ErrClosed.
func (c *Client) Close() error {
	c.send.Lock()
	_, err := c.conn.Write(c.appendRequest(nil, nbd.Request{Type: nbd.CmdDisc}))
	c.endTLS()
	c.send.Unlock()
	c.fail(ErrClosed)
	<-c.recvd
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// Abort closes the connection without a DISC, as a killed client does.
func (c *Client) Abort() {
	c.fail(ErrClosed)
	<-c.recvd
}

// Conn is the connection itself, that of TLS if it is used, for tests that send broken bytes. Bytes that are read from it do not
// reach the client.
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

// Start sends requests with one system call. It does not wait for their replies, but if too many are
// in flight it waits for some of those. Errors are given to Done, that of a broken connection too.
func (c *Client) Start(rs ...*Request) {
	c.send.Lock()
	defer c.send.Unlock()
	for len(rs) > 0 {
		n := 0
		for n < len(rs) && n < len(c.mu.slots) && c.fits(rs[n]) {
			n++
		}
		if n == 0 {
			r := rs[0]
			r.Err = fmt.Errorf("nbdclient: %v of %d bytes at %d: %w", r.Type, r.Length, r.Offset, errCompact)
			r.Done(r)
			rs = rs[1:]
			continue
		}
		c.start(rs[:n])
		rs = rs[n:]
	}
}

// start sends at most as many requests as there are places.
func (c *Client) start(rs []*Request) {
	c.send.head, c.send.ends, c.send.raw = c.send.head[:0], c.send.ends[:0], c.send.raw[:0]
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
		c.send.head = c.append(c.send.head, r, cookie)
		c.send.ends = append(c.send.ends, len(c.send.head))
	}
	c.mu.Unlock()
	head, from := c.send.head, 0
	for i, r := range rs {
		if r.Type == nbd.CmdWrite {
			end := c.send.ends[i]
			c.send.raw = append(c.send.raw, head[from:end], r.Data)
			from = end
		}
	}
	if from < len(head) {
		c.send.raw = append(c.send.raw, head[from:])
	}
	c.send.vecs = c.send.raw
	if err := c.write(); err != nil {
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
	c.wire.Close() // TLS would say goodbye first, and wait for that
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

// complete frees the cookie and then calls Done.
func (c *Client) complete(cookie uint64, r *Request) {
	c.mu.Lock()
	c.mu.slots[cookie] = nil
	c.mu.free = append(c.mu.free, cookie)
	c.mu.room.Signal()
	c.mu.Unlock()
	r.Done(r)
}
