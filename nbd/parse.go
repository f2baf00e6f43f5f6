package nbd

import "fmt"

// stop tells why parse stopped.
type stop int

const (
	stopPartial stop = iota // the rest has not come yet
	stopRound               // the round is full
	stopBig                 // a WRITE with a payload for a buffer of its own
	stopDisc
)

// refusal is an error of the request itself.
type refusal struct {
	Errno
	text string
}

func (r *refusal) Error() string { return r.text }
func (r *refusal) Unwrap() error { return r.Errno }

var (
	errCommand     = &refusal{EINVAL, "unknown command"}
	errFlags       = &refusal{EINVAL, "flag does not belong to the command"}
	errReserved    = &refusal{EINVAL, "offset and length of a flush must be 0"}
	errNoContext   = &refusal{EINVAL, "block status needs a metadata context: select base:allocation in the handshake"}
	errNoLength    = &refusal{EINVAL, "length must not be 0"}
	errContexts    = &refusal{EINVAL, "block status may ask for context 1, base:allocation, once"}
	errReadOnly    = &refusal{EPERM, "export is read-only"}
	errBeyond      = &refusal{EINVAL, "range goes beyond the end of the export"}
	errBeyondWrite = &refusal{ENOSPC, "range goes beyond the end of the export"}
	errLong        = &refusal{EINVAL, "request is longer than 32 MiB"}
	errLongDF      = &refusal{EOVERFLOW, "request is longer than 32 MiB"}
)

// check refuses what is wrong in a request, or returns nil.
func (c *session) check(req Request, size uint64) *refusal {
	if req.Type >= commands || req.Type == CmdDisc {
		return errCommand
	}
	allowed := commandFlags[req.Type]
	if !c.structured {
		allowed &^= FlagDF
	}
	if !c.extended {
		allowed &^= FlagPayloadLen
	}
	if req.Flags&^allowed != 0 {
		return errFlags
	}
	writes := false
	switch req.Type {
	case CmdFlush:
		if req.Offset != 0 || req.Length != 0 {
			return errReserved
		}
		return nil
	case CmdRead:
		if req.Length > MaxPayload {
			if req.Flags&FlagDF != 0 {
				return errLongDF
			}
			return errLong
		}
	case CmdBlockStatus:
		if !c.meta {
			return errNoContext
		}
		if req.Flags&FlagPayloadLen != 0 { // the range is in the payload
			if req.Length != statusPayload {
				return errContexts
			}
			return nil
		}
		if req.Length == 0 {
			return errNoLength
		}
	case CmdWrite, CmdTrim, CmdWriteZeroes:
		if c.disk == nil {
			return errReadOnly
		}
		writes = req.Type != CmdTrim
		if req.Type == CmdWrite && req.Length > MaxPayload {
			return errLong
		}
	}
	if req.Offset > size || req.Length > size-req.Offset {
		if writes {
			return errBeyondWrite
		}
		return errBeyond
	}
	return nil
}

// headLen is the length of the fixed part of a request.
func (c *session) headLen() int {
	if c.extended {
		return ExtendedRequestLen
	}
	return RequestLen
}

func (c *session) decode(p []byte) (Request, error) {
	if c.extended {
		return DecodeExtendedRequest(p)
	}
	return DecodeRequest(p)
}

// payload is how many bytes follow the fixed part of req, or an error if they are too many
// to be received or thrown away. With extended headers a flag says that there is a payload;
// but a WRITE has one without the flag too, as QEMU up to 10.0 never sets it.
func (c *session) payload(req Request) (n uint64, err error) {
	most := uint64(maxSkip)
	switch {
	case req.Type == CmdWrite && (!c.extended || req.Flags&FlagPayloadLen == 0):
		n = req.Length
	case c.extended && req.Flags&FlagPayloadLen != 0:
		n, most = req.Length, MaxPayload
	}
	if n > most {
		return 0, fmt.Errorf("%v with %d bytes: %w", req.Type, n, errLong)
	}
	return n, nil
}

// parse collects whole requests into the round, and answers those that are wrong. An error
// means that nobody can tell where the next request begins.
func (c *reader) parse() (stop, Request, error) {
	size, head := uint64(c.dev.Size()), c.headLen()
	for range roundMax {
		c.skipReceived()
		p := c.in.b[c.r:c.w]
		if len(p) < head {
			return stopPartial, Request{}, nil
		}
		req, err := c.decode(p)
		if err != nil {
			return stopPartial, Request{}, err
		}
		if req.Type == CmdDisc {
			c.r += head
			return stopDisc, Request{}, nil
		}
		payload, err := c.payload(req)
		if err != nil {
			return stopPartial, Request{}, err
		}
		refused, end := c.check(req, size), head+int(payload)
		if refused == nil && payload > 0 && len(p) < end {
			if req.Type != CmdWrite || payload < ownPayload {
				return stopPartial, Request{}, nil
			}
			c.r += head
			return stopBig, req, nil
		}
		c.parsed++
		if refused == nil && req.Type == CmdWrite {
			c.addWrite(req, p[head:end])
			c.r += end
			continue
		}
		if refused == nil && payload > 0 {
			req, refused = c.statusRange(req, p[head:end], size)
		}
		c.r += head
		c.skip = int64(payload)
		if refused == nil {
			c.add(req)
			continue
		}
		if req.Type < commands {
			c.in.round.counts[req.Type]++
		}
		c.inline(req, refused)
	}
	return stopRound, Request{}, nil
}

// skipReceived throws away a payload that was used or refused.
func (c *reader) skipReceived() {
	if c.skip > 0 {
		n := min(c.skip, int64(c.w-c.r))
		c.r += int(n)
		c.skip -= n
	}
}
