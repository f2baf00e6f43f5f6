package nbdclient

import (
	"encoding/binary"
	"errors"

	"openvstorage/nbd"
)

// errCompact is the error of a request that a server without extended headers would misunderstand.
var errCompact = errors.New("the server has no extended headers, which this needs")

// fits tells whether the headers in use can hold r.
func (c *Client) fits(r *Request) bool {
	return c.extended || r.Length>>32 == 0 && len(r.Contexts) == 0
}

func (c *Client) appendRequest(b []byte, r nbd.Request) []byte {
	if c.extended {
		return nbd.AppendExtendedRequest(b, r)
	}
	return nbd.AppendRequest(b, r)
}

// append appends the wire form of r without the data of a write.
func (c *Client) append(b []byte, r *Request, cookie uint64) []byte {
	req := nbd.Request{Flags: r.Flags, Type: r.Type, Cookie: cookie, Offset: r.Offset, Length: r.Length}
	switch {
	case r.Type == nbd.CmdRead || r.Type == nbd.CmdWrite:
		req.Length = uint64(len(r.Data))
		if c.extended && r.Type == nbd.CmdWrite {
			req.Flags |= nbd.FlagPayloadLen
		}
	case len(r.Contexts) > 0:
		req.Length = uint64(8 + 4*len(r.Contexts))
		req.Flags |= nbd.FlagPayloadLen
	}
	b = c.appendRequest(b, req)
	if len(r.Contexts) > 0 {
		b = binary.BigEndian.AppendUint64(b, r.Length)
		for _, id := range r.Contexts {
			b = binary.BigEndian.AppendUint32(b, id)
		}
	}
	return b
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
func (c *Client) Trim(off, n int64) error {
	return c.Do(&Request{Type: nbd.CmdTrim, Offset: uint64(off), Length: uint64(n)})
}

// Zero makes a range read as zeros; flags may hold nbd.FlagNoHole.
func (c *Client) Zero(off, n int64, flags nbd.CommandFlags) error {
	return c.Do(&Request{Type: nbd.CmdWriteZeroes, Flags: flags, Offset: uint64(off), Length: uint64(n)})
}

// Cache asks for a range to be brought near.
func (c *Client) Cache(off, n int64) error {
	return c.Do(&Request{Type: nbd.CmdCache, Offset: uint64(off), Length: uint64(n)})
}

// compactMost is the longest range in whole blocks without extended headers.
const compactMost = 1<<32 - nbd.PreferredBlock

// BlockStatus returns the first extents of a range; there may be more.
func (c *Client) BlockStatus(off, n int64) ([]Extent, error) {
	if !c.extended {
		n = min(n, compactMost)
	}
	r := &Request{Type: nbd.CmdBlockStatus, Offset: uint64(off), Length: uint64(n)}
	err := c.Do(r)
	return r.Extents, err
}
