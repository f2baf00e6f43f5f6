package nbd

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"openvstorage/device"
)

// handshake is the state of a client before the transmission phase. It reads only bytes
// that the protocol has announced, so that it takes none of the transmission phase.
type handshake struct {
	rw      io.ReadWriter
	exports Exports
	buffers *buffers
	// settle is called when the client has found its export, before the client is told:
	// from then on it is not sent away for others. False says that it was already.
	settle func() bool

	fixed      bool // the client knows option replies
	noZeroes   bool
	structured bool
	extended   bool   // extended headers; structured is set with them
	meta       bool   // base:allocation was selected
	metaName   string // for this export

	security security

	scratch *buffer
}

// session is what a handshake ends in.
type session struct {
	name       string
	dev        device.Reader
	disk       device.Device // dev, if it may be written
	release    func()
	structured bool
	extended   bool
	meta       bool
}

// run leads the client to an export. Any error ends the connection.
func (h *handshake) run(ctx context.Context) (session, error) {
	b := binary.BigEndian.AppendUint64(nil, Magic)
	b = binary.BigEndian.AppendUint64(b, OptionMagic)
	b = binary.BigEndian.AppendUint16(b, FlagFixedNewstyle|FlagNoZeroes)
	if _, err := h.rw.Write(b); err != nil {
		return session{}, err
	}
	b, err := h.read(4)
	if err != nil {
		return session{}, err
	}
	flags := binary.BigEndian.Uint32(b)
	if known := uint32(FlagFixedNewstyle | FlagNoZeroes); flags&^known != 0 {
		return session{}, fmt.Errorf("client flags %#x: unknown bits", flags)
	}
	h.fixed = flags&uint32(FlagFixedNewstyle) != 0
	h.noZeroes = flags&uint32(FlagNoZeroes) != 0
	for {
		s, done, err := h.option(ctx)
		if done || err != nil {
			return s, err
		}
	}
}

// option serves one option. done says that it led to the transmission phase.
func (h *handshake) option(ctx context.Context) (s session, done bool, err error) {
	head, err := h.read(OptionHeaderLen)
	if err != nil {
		return session{}, false, err
	}
	if m := binary.BigEndian.Uint64(head); m != OptionMagic {
		return session{}, false, fmt.Errorf("option header: %w %#x", ErrMagic, m)
	}
	opt, n := Option(binary.BigEndian.Uint32(head[8:])), binary.BigEndian.Uint32(head[12:])
	if h.security.plain() && opt == OptExportName {
		return session{}, false, fmt.Errorf("EXPORT_NAME: %w", errTLSRequired)
	}
	if opt == OptExportName {
		s, err = h.exportName(ctx, n)
		return s, err == nil, err
	}
	if !h.fixed {
		return session{}, false, fmt.Errorf("option %d from a client that knows no option replies", opt)
	}
	if h.security.plain() && opt != OptAbort && opt != OptStartTLS {
		return session{}, false, h.refusePlain(opt, n)
	}
	if n > maxOption {
		return session{}, false, h.skipOption(opt, n)
	}
	payload, err := h.read(int(n))
	if err != nil {
		return session{}, false, err
	}
	switch opt {
	case OptAbort:
		// An error does not matter: the client may be gone already.
		_ = h.reply(opt, RepAck, nil)
		return session{}, false, errAborted
	case OptInfo, OptGo:
		return h.infoOrGo(ctx, opt, payload)
	case OptList:
		err = h.list(ctx, payload)
	case OptStructuredReply, OptExtendedHeaders:
		err = h.replyForm(opt, n)
	case OptListMetaContext, OptSetMetaContext:
		err = h.metaContext(ctx, opt, payload)
	case OptStartTLS:
		err = h.startTLS(n)
	default:
		err = h.refuse(opt, RepErrUnsup, fmt.Errorf("option %d is not supported", opt))
	}
	return session{}, false, err
}

// replyForm turns on structured replies or extended headers. They cannot be turned off, and
// asking again changes nothing.
func (h *handshake) replyForm(opt Option, n uint32) error {
	switch {
	case n != 0:
		return h.refuse(opt, RepErrInvalid, errOption)
	case opt == OptExtendedHeaders:
		h.extended = true
	case h.extended:
		return h.refuse(opt, RepErrExtHeaderReqd, errors.New("extended headers are in use already, and have what structured replies have"))
	}
	h.structured = true
	return h.reply(opt, RepAck, nil)
}

// skipOption reads away an option that is too long, or gives up.
func (h *handshake) skipOption(opt Option, n uint32) error {
	if n > maxOptionSkip {
		return fmt.Errorf("option %d of %d bytes: %w", opt, n, errTooBig)
	}
	if _, err := io.CopyN(io.Discard, h.rw, int64(n)); err != nil {
		return err
	}
	return h.refuse(opt, RepErrTooBig, errTooBig)
}

// exportName serves the oldest option, to which no error can be sent.
func (h *handshake) exportName(ctx context.Context, n uint32) (session, error) {
	if h.extended {
		return session{}, errors.New("EXPORT_NAME after extended headers, which need GO")
	}
	if n > maxName {
		return session{}, fmt.Errorf("export name of %d bytes: %w", n, errTooBig)
	}
	payload, err := h.read(int(n))
	if err != nil {
		return session{}, err
	}
	s, err := h.open(ctx, string(payload))
	if err != nil {
		return session{}, err
	}
	if !h.settle() {
		s.release()
		return session{}, errNoPlace
	}
	b := binary.BigEndian.AppendUint64(nil, uint64(s.dev.Size()))
	b = binary.BigEndian.AppendUint16(b, uint16(s.flags(OptExportName)))
	if !h.noZeroes {
		b = append(b, make([]byte, exportNameZeros)...)
	}
	if _, err := h.rw.Write(b); err != nil {
		s.release()
		return session{}, err
	}
	return s, nil
}

// infoOrGo describes an export and, for GO, enters it.
func (h *handshake) infoOrGo(ctx context.Context, opt Option, payload []byte) (session, bool, error) {
	req, err := decodeInfo(payload)
	if err != nil {
		return session{}, false, h.refuse(opt, optionError(err), err)
	}
	s, err := h.open(ctx, req.name)
	if err != nil {
		return session{}, false, h.refuse(opt, optionError(err), err)
	}
	if opt == OptGo && !h.settle() {
		s.release()
		return session{}, false, errNoPlace
	}
	err = h.describe(ctx, opt, req, s)
	if err == nil {
		err = h.reply(opt, RepAck, nil)
	}
	if err != nil || opt == OptInfo {
		s.release()
		return session{}, false, err
	}
	return s, true, nil
}

// describe sends the infos of an export: size and block sizes always, as every client can
// take them, and the others if the client asks.
func (h *handshake) describe(ctx context.Context, opt Option, req infoRequest, s session) error {
	b := binary.BigEndian.AppendUint16(nil, uint16(InfoExport))
	b = binary.BigEndian.AppendUint64(b, uint64(s.dev.Size()))
	b = binary.BigEndian.AppendUint16(b, uint16(s.flags(opt)))
	if err := h.reply(opt, RepInfo, b); err != nil {
		return err
	}
	b = binary.BigEndian.AppendUint16(b[:0], uint16(InfoBlockSize))
	b = binary.BigEndian.AppendUint32(b, MinBlock)
	b = binary.BigEndian.AppendUint32(b, PreferredBlock)
	b = binary.BigEndian.AppendUint32(b, MaxPayload)
	if err := h.reply(opt, RepInfo, b); err != nil {
		return err
	}
	var named, described bool // once, however often it was asked for
	for _, info := range req.infos {
		text := s.name
		switch {
		case info == InfoName && !named:
			named = true
		case info == InfoDescription && !described:
			described = true
			if text = h.description(ctx, s.name); text == "" {
				continue
			}
		default:
			continue
		}
		b = binary.BigEndian.AppendUint16(b[:0], uint16(info))
		if err := h.reply(opt, RepInfo, append(b, text...)); err != nil {
			return err
		}
	}
	return nil
}

// description finds the description of an export. An error gives none: it is no reason to
// refuse the export.
func (h *handshake) description(ctx context.Context, name string) string {
	infos, err := h.exports.List(ctx)
	if err != nil {
		return ""
	}
	for _, info := range infos {
		if info.Name == name {
			return info.Description
		}
	}
	return ""
}

func (h *handshake) list(ctx context.Context, payload []byte) error {
	if len(payload) != 0 {
		return h.refuse(OptList, RepErrInvalid, errOption)
	}
	infos, err := h.exports.List(ctx)
	if err != nil {
		return h.refuse(OptList, RepErrPolicy, err)
	}
	for _, info := range infos {
		b := binary.BigEndian.AppendUint32(nil, uint32(len(info.Name)))
		b = append(append(b, info.Name...), info.Description...)
		if err := h.reply(OptList, RepServer, b); err != nil {
			return err
		}
	}
	return h.reply(OptList, RepAck, nil)
}

// metaContext lists or selects base:allocation. A selection replaces the one before, even
// if it fails.
func (h *handshake) metaContext(ctx context.Context, opt Option, payload []byte) error {
	if opt == OptSetMetaContext {
		h.meta, h.metaName = false, ""
	}
	if !h.structured {
		return h.refuse(opt, RepErrInvalid, errors.New("metadata contexts need structured replies: ask for them first"))
	}
	req, err := decodeMeta(payload)
	if err != nil {
		return h.refuse(opt, optionError(err), err)
	}
	s, err := h.open(ctx, req.name)
	if err != nil {
		return h.refuse(opt, optionError(err), err)
	}
	s.release()
	match, id := req.listsAllocation(), uint32(0)
	if opt == OptSetMetaContext {
		match, id = req.setsAllocation(), BaseAllocationID
		h.meta, h.metaName = match, s.name
	}
	if match {
		b := binary.BigEndian.AppendUint32(nil, id)
		if err := h.reply(opt, RepMetaContext, append(b, BaseAllocation...)); err != nil {
			return err
		}
	}
	return h.reply(opt, RepAck, nil)
}

// open finds an export. The empty name is the only export, if there is one.
func (h *handshake) open(ctx context.Context, name string) (session, error) {
	if len(name) > maxName {
		return session{}, errTooBig
	}
	if name == "" {
		infos, err := h.exports.List(ctx)
		if err != nil {
			return session{}, err
		}
		if len(infos) != 1 {
			return session{}, fmt.Errorf("no default export among %d: name one: %w", len(infos), fs.ErrNotExist)
		}
		name = infos[0].Name
	}
	dev, release, err := h.exports.Open(ctx, name)
	if err != nil {
		return session{}, fmt.Errorf("open export %s: %w", shown(name), err)
	}
	disk, _ := dev.(device.Device)
	return session{
		name: name, dev: dev, disk: disk, release: release,
		structured: h.structured, extended: h.extended,
		meta: h.meta && h.metaName == name,
	}, nil
}

// optionError is the one table from errors to option replies.
func optionError(err error) OptionReply {
	switch {
	case errors.Is(err, errOption):
		return RepErrInvalid
	case errors.Is(err, errTooBig):
		return RepErrTooBig
	case errors.Is(err, fs.ErrNotExist):
		return RepErrUnknown
	case errors.Is(err, context.Canceled):
		return RepErrShutdown
	}
	return RepErrPolicy
}

func (h *handshake) refuse(opt Option, typ OptionReply, err error) error {
	return h.reply(opt, typ, []byte(message(err)))
}

func (h *handshake) reply(opt Option, typ OptionReply, payload []byte) error {
	_, err := h.rw.Write(AppendOptionReply(nil, opt, typ, payload))
	return err
}

// read returns the next n bytes, at most maxOption, which are valid until the next call.
// The memory for them grows as they come: announcing many costs the server nothing.
func (h *handshake) read(n int) ([]byte, error) {
	for got := 0; ; {
		if h.scratch == nil {
			h.scratch = h.buffers.get(1)
		}
		m := min(n, len(h.scratch.b))
		k, err := io.ReadFull(h.rw, h.scratch.b[got:m])
		if got += k; got == n {
			return h.scratch.b[:n], nil
		}
		if err != nil {
			if got > 0 && err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
		more := h.buffers.get(2 * len(h.scratch.b))
		copy(more.b, h.scratch.b)
		h.buffers.put(h.scratch)
		h.scratch = more
	}
}

// close gives back the memory.
func (h *handshake) close() {
	if h.scratch != nil {
		h.buffers.put(h.scratch)
		h.scratch = nil
	}
}
