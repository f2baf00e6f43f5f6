package nbd

import (
	"encoding/binary"
	"errors"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Payloads of options:
//
//	INFO, GO                 4 name length, name, 2 count, count x 2 InfoType
//	LIST/SET_META_CONTEXT    4 name length, name, 4 count, count x (4 length, query)
//	EXPORT_NAME              name
//	all others               nothing

var (
	errOption  = errors.New("option payload is malformed")
	errTooBig  = errors.New("option is too long")
	errAborted = errors.New("client aborted the handshake")
)

// infoRequest is the payload of INFO and GO.
type infoRequest struct {
	name  string
	infos []InfoType
}

// decodeInfo reads the payload of INFO and GO, all of it.
func decodeInfo(p []byte) (infoRequest, error) {
	name, p, err := cutString(p)
	if err != nil {
		return infoRequest{}, err
	}
	if len(p) < 2 || len(p) != 2+2*int(binary.BigEndian.Uint16(p)) {
		return infoRequest{}, errOption
	}
	r := infoRequest{name: name}
	for p = p[2:]; len(p) > 0; p = p[2:] {
		r.infos = append(r.infos, InfoType(binary.BigEndian.Uint16(p)))
	}
	return r, nil
}

// metaRequest is the payload of LIST_META_CONTEXT and SET_META_CONTEXT.
type metaRequest struct {
	name    string
	queries []string
}

// decodeMeta reads the payload of the META_CONTEXT options, all of it.
func decodeMeta(p []byte) (metaRequest, error) {
	name, p, err := cutString(p)
	if err != nil {
		return metaRequest{}, err
	}
	if len(p) < 4 {
		return metaRequest{}, errOption
	}
	n := binary.BigEndian.Uint32(p)
	if n > maxQueries {
		return metaRequest{}, errTooBig
	}
	r := metaRequest{name: name}
	p = p[4:]
	for range n {
		var q string
		if q, p, err = cutString(p); err != nil {
			return metaRequest{}, err
		}
		r.queries = append(r.queries, q)
	}
	if len(p) != 0 {
		return metaRequest{}, errOption
	}
	return r, nil
}

// cutString reads a length of 4 bytes and as many bytes of a name.
func cutString(p []byte) (s string, rest []byte, err error) {
	if len(p) < 4 {
		return "", nil, errOption
	}
	n := binary.BigEndian.Uint32(p)
	p = p[4:]
	if uint64(n) > uint64(len(p)) {
		return "", nil, errOption
	}
	if n > maxName {
		return "", nil, errTooBig
	}
	return string(p[:n]), p[n:], nil
}

// listsAllocation tells whether the queries of LIST_META_CONTEXT match
// base:allocation; none at all asks for everything.
func (r metaRequest) listsAllocation() bool {
	for _, q := range r.queries {
		if q == BaseAllocation || q == "base:" {
			return true
		}
	}
	return len(r.queries) == 0
}

// setsAllocation tells whether the queries of SET_META_CONTEXT select
// base:allocation: by its name only.
func (r metaRequest) setsAllocation() bool {
	for _, q := range r.queries {
		if q == BaseAllocation {
			return true
		}
	}
	return false
}

// flags are what the export offers in reply to opt. INFO may come before the client selects
// the context.
func (s session) flags(opt Option) TransmissionFlags {
	f := HasFlags | SendFlush | SendFUA | CanMultiConn | SendCache
	if s.structured {
		f |= SendDF
	}
	if s.extended && (s.meta || opt == OptInfo) {
		f |= BlockStatusPayload
	}
	if s.disk == nil {
		return f | ReadOnly
	}
	return f | SendTrim | SendWriteZeroes | SendFastZero
}

// message is the text of an error for a client and for a log: one line of printable
// characters, bounded, as names that clients give may be in it.
func message(err error) string {
	if err == nil {
		return ""
	}
	s := strings.ReplaceAll(err.Error(), "\n", "; ")
	if len(s) > maxMessage {
		const end = "..."
		s = s[:maxMessage-len(end)] + end
	}
	return strings.Map(func(r rune) rune {
		switch {
		case r == utf8.RuneError || !unicode.IsPrint(r):
			return -1
		}
		return r
	}, s)
}
