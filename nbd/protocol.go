package nbd

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// All integers are big endian. The values are on the wire: never change one.
//
// Handshake:
//
//	server   8 NBDMAGIC   8 IHAVEOPT   2 handshake flags
//	client   4 client flags
//	option   8 IHAVEOPT   4 option   4 length   length bytes
//	reply    8 magic      4 option   4 type     4 length   length bytes
//
// EXPORT_NAME alone is answered without a reply header:
//
//	server   8 size       2 transmission flags   124 zeros (not with NO_ZEROES)
//
// Transmission:
//
//	request  0 magic 4   4 flags 2   6 type 2   8 cookie 8   16 offset 8   24 length 4   28 payload (WRITE)
//	simple   0 magic 4   4 error 4   8 cookie 8   16 payload (READ)
//	chunk    0 magic 4   4 flags 2   6 type 2   8 cookie 8   16 length 4   20 payload:
//	           OFFSET_DATA   offset 8   data
//	           OFFSET_HOLE   offset 8   length 4
//	           BLOCK_STATUS  context 4   (length 4   flags 4)...
//	           ERROR         error 4   message length 2   message
//	           ERROR_OFFSET  error 4   message length 2   message   offset 8
//
// With extended headers there are these two only. The payload of a chunk is
// as above but for the one that they add. The offset is that of the request:
//
//	request  0 magic 4   4 flags 2   6 type 2   8 cookie 8   16 offset 8   24 length 8   32 payload (PAYLOAD_LEN):
//	           WRITE         data
//	           BLOCK_STATUS  length 8   (context 4)...
//	chunk    0 magic 4   4 flags 2   6 type 2   8 cookie 8   16 offset 8   24 length 8   32 payload:
//	           BLOCK_STATUS_EXT  context 4   count 4   (length 8   flags 8)...
const (
	Magic                uint64 = 0x4e42444d41474943 // NBDMAGIC
	OptionMagic          uint64 = 0x49484156454f5054 // IHAVEOPT
	OptionReplyMagic     uint64 = 0x0003e889045565a9
	RequestMagic         uint32 = 0x25609513
	SimpleReplyMagic     uint32 = 0x67446698
	StructuredReplyMagic uint32 = 0x668e33ef
	ExtendedRequestMagic uint32 = 0x21e41c71
	ExtendedReplyMagic   uint32 = 0x6e8a278c
)

// Sizes of the fixed parts above.
const (
	OptionHeaderLen      = 16
	OptionReplyHeaderLen = 20
	RequestLen           = 28
	SimpleReplyLen       = 16
	ChunkLen             = 20
	ExtendedRequestLen   = 32
	ExtendedChunkLen     = 32

	exportNameZeros = 124
)

// Handshake flags of the server and of the client have the same two bits.
const (
	FlagFixedNewstyle uint16 = 1 << 0
	FlagNoZeroes      uint16 = 1 << 1
)

// Option is what a client asks for in the handshake.
type Option uint32

// Options.
const (
	OptExportName      Option = 1
	OptAbort           Option = 2
	OptList            Option = 3
	OptStartTLS        Option = 5
	OptInfo            Option = 6
	OptGo              Option = 7
	OptStructuredReply Option = 8
	OptListMetaContext Option = 9
	OptSetMetaContext  Option = 10
	OptExtendedHeaders Option = 11
)

// OptionReply is the type of a reply to an option. Errors have bit 31 set.
type OptionReply uint32

// Option replies.
const (
	RepAck         OptionReply = 1
	RepServer      OptionReply = 2 // 4 name length, name, description
	RepInfo        OptionReply = 3 // 2 InfoType, ...
	RepMetaContext OptionReply = 4 // 4 context id, name

	RepErrUnsup         OptionReply = 1<<31 + 1
	RepErrPolicy        OptionReply = 1<<31 + 2
	RepErrInvalid       OptionReply = 1<<31 + 3
	RepErrTLSReqd       OptionReply = 1<<31 + 5
	RepErrUnknown       OptionReply = 1<<31 + 6
	RepErrShutdown      OptionReply = 1<<31 + 7
	RepErrTooBig        OptionReply = 1<<31 + 9
	RepErrExtHeaderReqd OptionReply = 1<<31 + 10
)

// InfoType is the kind of a RepInfo.
type InfoType uint16

// Infos.
const (
	InfoExport      InfoType = 0 // 8 size, 2 transmission flags
	InfoName        InfoType = 1
	InfoDescription InfoType = 2
	InfoBlockSize   InfoType = 3 // 4 minimum, 4 preferred, 4 maximum payload
)

// TransmissionFlags tell the client what the export can do.
type TransmissionFlags uint16

// Transmission flags.
const (
	HasFlags        TransmissionFlags = 1 << 0
	ReadOnly        TransmissionFlags = 1 << 1
	SendFlush       TransmissionFlags = 1 << 2
	SendFUA         TransmissionFlags = 1 << 3
	SendTrim        TransmissionFlags = 1 << 5
	SendWriteZeroes TransmissionFlags = 1 << 6
	SendDF          TransmissionFlags = 1 << 7
	CanMultiConn    TransmissionFlags = 1 << 8
	SendCache       TransmissionFlags = 1 << 10
	SendFastZero    TransmissionFlags = 1 << 11

	// BLOCK_STATUS may name the contexts that it wants, with PAYLOAD_LEN.
	BlockStatusPayload TransmissionFlags = 1 << 12
)

// Command is the type of a request.
type Command uint16

// Commands.
const (
	CmdRead        Command = 0
	CmdWrite       Command = 1
	CmdDisc        Command = 2
	CmdFlush       Command = 3
	CmdTrim        Command = 4
	CmdCache       Command = 5
	CmdWriteZeroes Command = 6
	CmdBlockStatus Command = 7

	commands = 8
)

var commandNames = [commands]string{"read", "write", "disc", "flush", "trim", "cache", "write_zeroes", "block_status"}

func (c Command) String() string {
	if int(c) < len(commandNames) {
		return commandNames[c]
	}
	return fmt.Sprintf("command %d", uint16(c))
}

// CommandFlags modify a request.
type CommandFlags uint16

// Command flags.
const (
	FlagFUA        CommandFlags = 1 << 0 // durable before the reply
	FlagNoHole     CommandFlags = 1 << 1 // WRITE_ZEROES: keep the range allocated
	FlagDF         CommandFlags = 1 << 2 // READ: one content chunk
	FlagReqOne     CommandFlags = 1 << 3 // BLOCK_STATUS: one extent
	FlagFastZero   CommandFlags = 1 << 4 // WRITE_ZEROES: fail rather than be slow
	FlagPayloadLen CommandFlags = 1 << 5 // extended headers: the length is that of a payload
)

// commandFlags are the flags that each command accepts. FUA is valid
// everywhere, as clients are known to set it on commands that write nothing.
var commandFlags = [commands]CommandFlags{
	CmdRead:        FlagFUA | FlagDF,
	CmdWrite:       FlagFUA | FlagPayloadLen,
	CmdFlush:       FlagFUA,
	CmdTrim:        FlagFUA,
	CmdCache:       FlagFUA,
	CmdWriteZeroes: FlagFUA | FlagNoHole | FlagFastZero,
	CmdBlockStatus: FlagFUA | FlagReqOne | FlagPayloadLen,
}

// ChunkType is the type of a structured reply chunk. Errors have bit 15 set.
type ChunkType uint16

// Chunk types.
const (
	ChunkNone           ChunkType = 0
	ChunkOffsetData     ChunkType = 1
	ChunkOffsetHole     ChunkType = 2
	ChunkBlockStatus    ChunkType = 5
	ChunkBlockStatusExt ChunkType = 6
	ChunkError          ChunkType = 1<<15 + 1
	ChunkErrorOffset    ChunkType = 1<<15 + 2
)

// ChunkDone marks the last chunk of a reply.
const ChunkDone uint16 = 1 << 0

// The only metadata context served, and the bits of its extents.
const (
	BaseAllocation          = "base:allocation"
	BaseAllocationID        = 1
	StateHole        uint32 = 1 << 0
	StateZero        uint32 = 1 << 1
)

// Block sizes that are told to clients, in bytes. Requests need no alignment.
const (
	MinBlock       = 1
	PreferredBlock = 4096
	MaxPayload     = 32 << 20 // longest READ and WRITE
)

// Request is the fixed part of a request.
type Request struct {
	Flags  CommandFlags
	Type   Command
	Cookie uint64
	Offset uint64
	Length uint64 // below 4 GiB without extended headers
}

// ErrMagic means that the two ends no longer agree on where a message starts.
var ErrMagic = errors.New("bad magic")

// AppendRequest appends the wire form of r, whose length must have 32 bits.
func AppendRequest(b []byte, r Request) []byte {
	b = binary.BigEndian.AppendUint32(b, RequestMagic)
	b = binary.BigEndian.AppendUint16(b, uint16(r.Flags))
	b = binary.BigEndian.AppendUint16(b, uint16(r.Type))
	b = binary.BigEndian.AppendUint64(b, r.Cookie)
	b = binary.BigEndian.AppendUint64(b, r.Offset)
	return binary.BigEndian.AppendUint32(b, uint32(r.Length))
}

// DecodeRequest reads the first RequestLen bytes of b, which must be there.
func DecodeRequest(b []byte) (Request, error) {
	_ = b[RequestLen-1]
	if binary.BigEndian.Uint32(b) != RequestMagic {
		return Request{}, fmt.Errorf("request header: %w %#x", ErrMagic, binary.BigEndian.Uint32(b))
	}
	return Request{
		Flags:  CommandFlags(binary.BigEndian.Uint16(b[4:])),
		Type:   Command(binary.BigEndian.Uint16(b[6:])),
		Cookie: binary.BigEndian.Uint64(b[8:]),
		Offset: binary.BigEndian.Uint64(b[16:]),
		Length: uint64(binary.BigEndian.Uint32(b[24:])),
	}, nil
}

// AppendExtendedRequest appends the extended form of r.
func AppendExtendedRequest(b []byte, r Request) []byte {
	b = binary.BigEndian.AppendUint32(b, ExtendedRequestMagic)
	b = binary.BigEndian.AppendUint16(b, uint16(r.Flags))
	b = binary.BigEndian.AppendUint16(b, uint16(r.Type))
	b = binary.BigEndian.AppendUint64(b, r.Cookie)
	b = binary.BigEndian.AppendUint64(b, r.Offset)
	return binary.BigEndian.AppendUint64(b, r.Length)
}

// DecodeExtendedRequest reads the first ExtendedRequestLen bytes of b, which
// must be there.
func DecodeExtendedRequest(b []byte) (Request, error) {
	_ = b[ExtendedRequestLen-1]
	if binary.BigEndian.Uint32(b) != ExtendedRequestMagic {
		return Request{}, fmt.Errorf("extended request header: %w %#x", ErrMagic, binary.BigEndian.Uint32(b))
	}
	return Request{
		Flags:  CommandFlags(binary.BigEndian.Uint16(b[4:])),
		Type:   Command(binary.BigEndian.Uint16(b[6:])),
		Cookie: binary.BigEndian.Uint64(b[8:]),
		Offset: binary.BigEndian.Uint64(b[16:]),
		Length: binary.BigEndian.Uint64(b[24:]),
	}, nil
}

// AppendSimpleReply appends a simple reply without its payload.
func AppendSimpleReply(b []byte, cookie uint64, e Errno) []byte {
	b = binary.BigEndian.AppendUint32(b, SimpleReplyMagic)
	b = binary.BigEndian.AppendUint32(b, uint32(e))
	return binary.BigEndian.AppendUint64(b, cookie)
}

// AppendChunk appends the head of a structured reply chunk whose payload has
// length bytes.
func AppendChunk(b []byte, flags uint16, typ ChunkType, cookie uint64, length uint32) []byte {
	b = binary.BigEndian.AppendUint32(b, StructuredReplyMagic)
	b = binary.BigEndian.AppendUint16(b, flags)
	b = binary.BigEndian.AppendUint16(b, uint16(typ))
	b = binary.BigEndian.AppendUint64(b, cookie)
	return binary.BigEndian.AppendUint32(b, length)
}

// AppendExtendedChunk appends the head of an extended reply chunk to a request
// at offset, whose payload has length bytes.
func AppendExtendedChunk(b []byte, flags uint16, typ ChunkType, cookie, offset, length uint64) []byte {
	b = binary.BigEndian.AppendUint32(b, ExtendedReplyMagic)
	b = binary.BigEndian.AppendUint16(b, flags)
	b = binary.BigEndian.AppendUint16(b, uint16(typ))
	b = binary.BigEndian.AppendUint64(b, cookie)
	b = binary.BigEndian.AppendUint64(b, offset)
	return binary.BigEndian.AppendUint64(b, length)
}

// AppendOption appends an option with its payload.
func AppendOption(b []byte, opt Option, payload []byte) []byte {
	b = binary.BigEndian.AppendUint64(b, OptionMagic)
	b = binary.BigEndian.AppendUint32(b, uint32(opt))
	b = binary.BigEndian.AppendUint32(b, uint32(len(payload)))
	return append(b, payload...)
}

// AppendOptionReply appends a reply to opt with its payload.
func AppendOptionReply(b []byte, opt Option, typ OptionReply, payload []byte) []byte {
	b = binary.BigEndian.AppendUint64(b, OptionReplyMagic)
	b = binary.BigEndian.AppendUint32(b, uint32(opt))
	b = binary.BigEndian.AppendUint32(b, uint32(typ))
	b = binary.BigEndian.AppendUint32(b, uint32(len(payload)))
	return append(b, payload...)
}
