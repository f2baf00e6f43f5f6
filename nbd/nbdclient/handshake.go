package nbdclient

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"syscall"

	"openvstorage/nbd"
)

// ErrNotTaken is the error if the server hangs up before its greeting: it takes no more clients.
var ErrNotTaken = errors.New("the server hung up at once: it has as many connections as it takes, or it stops")

// Handshake is the client's side of a handshake, step by step. It reads only what belongs to the
// handshake, so that a transmission phase may follow.
type Handshake struct {
	rw io.ReadWriter
}

// NewHandshake begins on a fresh connection.
func NewHandshake(rw io.ReadWriter) *Handshake { return &Handshake{rw} }

// Start reads the greeting and sends the client flags.
func (h *Handshake) Start(flags uint16) error {
	var b [18]byte
	if n, err := io.ReadFull(h.rw, b[:]); n == 0 && (err == io.EOF || errors.Is(err, syscall.ECONNRESET)) {
		return fmt.Errorf("%w (%w)", ErrNotTaken, err)
	} else if err != nil {
		return fmt.Errorf("greeting: %w", err)
	}
	if binary.BigEndian.Uint64(b[:]) != nbd.Magic || binary.BigEndian.Uint64(b[8:]) != nbd.OptionMagic {
		return fmt.Errorf("greeting: %w %x: not a newstyle NBD server", nbd.ErrMagic, b[:16])
	}
	if binary.BigEndian.Uint16(b[16:])&nbd.FlagFixedNewstyle == 0 {
		return errors.New("server has no fixed newstyle handshake")
	}
	_, err := h.rw.Write(binary.BigEndian.AppendUint32(nil, uint32(flags)))
	return err
}

// Reply is one reply to an option.
type Reply struct {
	Option  nbd.Option
	Type    nbd.OptionReply
	Payload []byte
}

// Err is the error that the reply carries, or nil.
func (r Reply) Err() error {
	if r.Type>>31 == 0 {
		return nil
	}
	return fmt.Errorf("server refuses option %d with error %d: %s", r.Option, r.Type&^(1<<31), r.Payload)
}

// Send sends an option.
func (h *Handshake) Send(opt nbd.Option, payload []byte) error {
	_, err := h.rw.Write(nbd.AppendOption(nil, opt, payload))
	return err
}

// Receive reads one reply.
func (h *Handshake) Receive() (Reply, error) {
	var b [nbd.OptionReplyHeaderLen]byte
	if _, err := io.ReadFull(h.rw, b[:]); err != nil {
		return Reply{}, err
	}
	if m := binary.BigEndian.Uint64(b[:]); m != nbd.OptionReplyMagic {
		return Reply{}, fmt.Errorf("option reply: %w %#x", nbd.ErrMagic, m)
	}
	r := Reply{
		Option: nbd.Option(binary.BigEndian.Uint32(b[8:])),
		Type:   nbd.OptionReply(binary.BigEndian.Uint32(b[12:])),
	}
	n := binary.BigEndian.Uint32(b[16:])
	if n > 64<<10 {
		return Reply{}, fmt.Errorf("option reply of %d bytes", n)
	}
	r.Payload = make([]byte, n)
	_, err := io.ReadFull(h.rw, r.Payload)
	return r, err
}

// Option sends an option and returns the replies up to the last.
func (h *Handshake) Option(opt nbd.Option, payload []byte) ([]Reply, error) {
	if err := h.Send(opt, payload); err != nil {
		return nil, err
	}
	var rs []Reply
	for {
		r, err := h.Receive()
		if err != nil {
			return rs, fmt.Errorf("reply to option %d: %w", opt, err)
		}
		if r.Option != opt {
			return rs, fmt.Errorf("reply to option %d is for option %d", opt, r.Option)
		}
		rs = append(rs, r)
		if r.Type == nbd.RepAck || r.Type>>31 != 0 {
			return rs, nil
		}
	}
}

// StructuredReply asks for structured replies.
func (h *Handshake) StructuredReply() (bool, error) {
	rs, err := h.Option(nbd.OptStructuredReply, nil)
	return err == nil && rs[len(rs)-1].Type == nbd.RepAck, err
}

// ExtendedHeaders asks for extended headers, which have structured replies.
func (h *Handshake) ExtendedHeaders() (bool, error) {
	rs, err := h.Option(nbd.OptExtendedHeaders, nil)
	return err == nil && rs[len(rs)-1].Type == nbd.RepAck, err
}

// SetMetaContext selects a metadata context of an export.
func (h *Handshake) SetMetaContext(export, context string) (bool, error) {
	rs, err := h.Option(nbd.OptSetMetaContext, MetaPayload(export, context))
	return err == nil && len(rs) == 2 && rs[0].Type == nbd.RepMetaContext, err
}

// ExportInfo is what INFO and GO tell.
type ExportInfo struct {
	Size                           int64
	Flags                          nbd.TransmissionFlags
	MinBlock, PreferredBlock, Most uint32 // 0: not told
	Name, Description              string // if asked for
}

// Go enters the export.
func (h *Handshake) Go(export string) (ExportInfo, error) {
	return h.info(nbd.OptGo, export)
}

// Info asks about an export.
func (h *Handshake) Info(export string) (ExportInfo, error) {
	return h.info(nbd.OptInfo, export, nbd.InfoName, nbd.InfoDescription, nbd.InfoBlockSize)
}

func (h *Handshake) info(opt nbd.Option, export string, infos ...nbd.InfoType) (ExportInfo, error) {
	rs, err := h.Option(opt, InfoPayload(export, infos...))
	if err != nil {
		return ExportInfo{}, err
	}
	if err := rs[len(rs)-1].Err(); err != nil {
		return ExportInfo{}, err
	}
	var e ExportInfo
	found := false
	for _, r := range rs {
		if r.Type != nbd.RepInfo || len(r.Payload) < 2 {
			continue
		}
		p := r.Payload[2:]
		switch typ := nbd.InfoType(binary.BigEndian.Uint16(r.Payload)); {
		case typ == nbd.InfoExport && len(p) == 10:
			e.Size, e.Flags = int64(binary.BigEndian.Uint64(p)), nbd.TransmissionFlags(binary.BigEndian.Uint16(p[8:]))
			found = true
		case typ == nbd.InfoBlockSize && len(p) == 12:
			e.MinBlock, e.PreferredBlock, e.Most = binary.BigEndian.Uint32(p), binary.BigEndian.Uint32(p[4:]), binary.BigEndian.Uint32(p[8:])
		case typ == nbd.InfoName:
			e.Name = string(p)
		case typ == nbd.InfoDescription:
			e.Description = string(p)
		}
	}
	if !found {
		return ExportInfo{}, errors.New("server did not tell the size of the export")
	}
	return e, nil
}

// InfoPayload is the payload of INFO and GO.
func InfoPayload(export string, infos ...nbd.InfoType) []byte {
	b := appendString(nil, export)
	b = binary.BigEndian.AppendUint16(b, uint16(len(infos)))
	for _, i := range infos {
		b = binary.BigEndian.AppendUint16(b, uint16(i))
	}
	return b
}

// MetaPayload is the payload of LIST_META_CONTEXT and SET_META_CONTEXT.
func MetaPayload(export string, queries ...string) []byte {
	b := appendString(nil, export)
	b = binary.BigEndian.AppendUint32(b, uint32(len(queries)))
	for _, q := range queries {
		b = appendString(b, q)
	}
	return b
}

func appendString(b []byte, s string) []byte {
	return append(binary.BigEndian.AppendUint32(b, uint32(len(s))), s...)
}
