package nbdclient

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"openvstorage/nbd"
)

// receiveOne reads one simple reply or one chunk.
func (c *Client) receiveOne(in *bufio.Reader) error {
	p, err := in.Peek(nbd.SimpleReplyLen)
	if err != nil {
		return err
	}
	switch magic := binary.BigEndian.Uint32(p); {
	case magic == nbd.ExtendedReplyMagic && c.extended:
		return c.extendedChunk(in)
	case magic == nbd.SimpleReplyMagic && !c.extended:
		return c.simpleReply(in, p)
	case magic == nbd.StructuredReplyMagic && !c.extended:
		return c.chunk(in)
	}
	return fmt.Errorf("reply: %w %#x", nbd.ErrMagic, binary.BigEndian.Uint32(p))
}

func (c *Client) simpleReply(in *bufio.Reader, p []byte) error {
	errno, cookie := nbd.Errno(binary.BigEndian.Uint32(p[4:])), binary.BigEndian.Uint64(p[8:])
	in.Discard(nbd.SimpleReplyLen) // it was peeked at
	r, err := c.find(cookie)
	if err != nil {
		return err
	}
	if errno != nbd.OK {
		r.Err = errno
	} else if r.Type == nbd.CmdRead {
		if _, err := io.ReadFull(in, r.Data); err != nil {
			return err
		}
	}
	c.complete(cookie, r)
	return nil
}

func (c *Client) chunk(in *bufio.Reader) error {
	p, err := in.Peek(nbd.ChunkLen)
	if err != nil {
		return err
	}
	flags, typ := binary.BigEndian.Uint16(p[4:]), nbd.ChunkType(binary.BigEndian.Uint16(p[6:]))
	cookie, n := binary.BigEndian.Uint64(p[8:]), binary.BigEndian.Uint32(p[16:])
	in.Discard(nbd.ChunkLen) // it was peeked at
	r, err := c.find(cookie)
	if err != nil {
		return err
	}
	return c.payload(in, r, flags, typ, cookie, n)
}

// extendedChunk reads a chunk with extended headers.
func (c *Client) extendedChunk(in *bufio.Reader) error {
	p, err := in.Peek(nbd.ExtendedChunkLen)
	if err != nil {
		return err
	}
	flags, typ := binary.BigEndian.Uint16(p[4:]), nbd.ChunkType(binary.BigEndian.Uint16(p[6:]))
	cookie, off, n := binary.BigEndian.Uint64(p[8:]), binary.BigEndian.Uint64(p[16:]), binary.BigEndian.Uint64(p[24:])
	in.Discard(nbd.ExtendedChunkLen) // it was peeked at
	r, err := c.find(cookie)
	if err != nil {
		return err
	}
	if off != r.Offset {
		return fmt.Errorf("reply to %v at %d says that it was at %d", r.Type, r.Offset, off)
	}
	if n>>32 != 0 {
		return fmt.Errorf("chunk of %d bytes", n)
	}
	return c.payload(in, r, flags, typ, cookie, uint32(n))
}

// payload reads the payload of a chunk, n bytes.
func (c *Client) payload(in *bufio.Reader, r *Request, flags uint16, typ nbd.ChunkType, cookie uint64, n uint32) (err error) {
	switch {
	case typ == nbd.ChunkNone:
		err = want(n == 0, "empty chunk", n)
	case typ == nbd.ChunkOffsetData && r.Type == nbd.CmdRead:
		err = r.data(in, n)
	case typ == nbd.ChunkOffsetHole && r.Type == nbd.CmdRead:
		err = r.hole(in, n)
	case typ == nbd.ChunkBlockStatus && r.Type == nbd.CmdBlockStatus:
		err = r.blockStatus(in, n)
	case typ == nbd.ChunkBlockStatusExt && r.Type == nbd.CmdBlockStatus && c.extended:
		err = r.blockStatusExt(in, n)
	case typ&(1<<15) != 0:
		err = r.errorChunk(in, n)
	default:
		err = fmt.Errorf("chunk of type %d for %v", typ, r.Type)
	}
	if err != nil {
		return err
	}
	if flags&nbd.ChunkDone != 0 {
		if r.Err == nil && r.Type == nbd.CmdRead && r.got != uint64(len(r.Data)) {
			return fmt.Errorf("read of %d bytes answered with %d", len(r.Data), r.got)
		}
		c.complete(cookie, r)
	}
	return nil
}

func want(ok bool, what string, n uint32) error {
	if ok {
		return nil
	}
	return fmt.Errorf("%s of %d bytes", what, n)
}

// part is the place in Data of n bytes at an absolute offset.
func (r *Request) part(off uint64, n uint32) ([]byte, error) {
	if off < r.Offset || off-r.Offset > uint64(len(r.Data)) || uint64(n) > uint64(len(r.Data))-(off-r.Offset) {
		return nil, fmt.Errorf("chunk of %d bytes at %d lies outside the read", n, off)
	}
	r.got += uint64(n)
	return r.Data[off-r.Offset:][:n], nil
}

func (r *Request) data(in *bufio.Reader, n uint32) error {
	if err := want(n > 8, "data chunk", n); err != nil {
		return err
	}
	p, err := in.Peek(8)
	if err != nil {
		return err
	}
	off := binary.BigEndian.Uint64(p)
	in.Discard(8)
	if p, err = r.part(off, n-8); err != nil {
		return err
	}
	_, err = io.ReadFull(in, p)
	return err
}

func (r *Request) hole(in *bufio.Reader, n uint32) error {
	if err := want(n == 12, "hole chunk", n); err != nil {
		return err
	}
	p, err := in.Peek(12)
	if err != nil {
		return err
	}
	off, size := binary.BigEndian.Uint64(p), binary.BigEndian.Uint32(p[8:])
	in.Discard(12)
	if p, err = r.part(off, size); err != nil {
		return err
	}
	clear(p)
	return nil
}

func (r *Request) blockStatus(in *bufio.Reader, n uint32) error {
	if err := want(n >= 12 && n%8 == 4 && n <= 1<<20, "block status chunk", n); err != nil {
		return err
	}
	p := make([]byte, n)
	if _, err := io.ReadFull(in, p); err != nil {
		return err
	}
	for p = p[4:]; len(p) > 0; p = p[8:] {
		state := binary.BigEndian.Uint32(p[4:])
		r.Extents = append(r.Extents, Extent{
			Length: int64(binary.BigEndian.Uint32(p)),
			Hole:   state&nbd.StateHole != 0,
			Zero:   state&nbd.StateZero != 0,
		})
	}
	return nil
}

func (r *Request) blockStatusExt(in *bufio.Reader, n uint32) error {
	if err := want(n >= 24 && n%16 == 8 && n <= 1<<20, "extended block status chunk", n); err != nil {
		return err
	}
	p := make([]byte, n)
	if _, err := io.ReadFull(in, p); err != nil {
		return err
	}
	if count := binary.BigEndian.Uint32(p[4:]); count != 0 && count != n/16 { // 0: it is for the length to tell
		return fmt.Errorf("extended block status of %d bytes says that it has %d extents", n, count)
	}
	for p = p[8:]; len(p) > 0; p = p[16:] {
		length, state := binary.BigEndian.Uint64(p), binary.BigEndian.Uint64(p[8:])
		if length>>63 != 0 {
			return fmt.Errorf("extent of %d bytes", length)
		}
		r.Extents = append(r.Extents, Extent{
			Length: int64(length),
			Hole:   state&uint64(nbd.StateHole) != 0,
			Zero:   state&uint64(nbd.StateZero) != 0,
		})
	}
	return nil
}

func (r *Request) errorChunk(in *bufio.Reader, n uint32) error {
	if err := want(n >= 6 && n <= 64<<10, "error chunk", n); err != nil {
		return err
	}
	p := make([]byte, n)
	if _, err := io.ReadFull(in, p); err != nil {
		return err
	}
	errno, length := nbd.Errno(binary.BigEndian.Uint32(p)), int(binary.BigEndian.Uint16(p[4:]))
	if errno == nbd.OK || length > len(p)-6 {
		return errors.New("malformed error chunk")
	}
	r.Err = errno
	if length > 0 {
		r.Err = fmt.Errorf("%w: %s", errno, p[6:6+length])
	}
	return nil
}
