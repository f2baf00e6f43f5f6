package guest

import (
	"encoding/binary"
	"fmt"
	"io"
)

// The log of dm-log-writes, as the kernel's documentation of the target describes it: a
// super block, then entries, each a header and what was written. All are in sectors of
// the device, and numbers are little-endian.
const (
	logMagic   = 0x6a736677736872
	logVersion = 1

	LogFlush   = 1 << 0 // all before it is durable
	LogFUA     = 1 << 1 // it is durable itself
	LogDiscard = 1 << 2 // without data
	LogMark    = 1 << 3 // its text is behind the header, in the same sector
)

const (
	logHeader  = 32
	logDataMax = 64 << 20
)

// LogEntry is one request that arrived at the device, or a mark.
type LogEntry struct {
	Offset, Length int64
	Flags          uint64
	Mark           string
	Data           []byte // of a write
}

// ReadLog calls fn with all entries in order.
func ReadLog(log io.ReaderAt, fn func(LogEntry) error) error {
	super := make([]byte, logHeader)
	if _, err := log.ReadAt(super, 0); err != nil {
		return fmt.Errorf("log of writes: %w", err)
	}
	magic, version := binary.LittleEndian.Uint64(super), binary.LittleEndian.Uint64(super[8:])
	count, unit := binary.LittleEndian.Uint64(super[16:]), int64(binary.LittleEndian.Uint32(super[24:]))
	if magic != logMagic || version != logVersion || unit < 512 || unit > 64<<10 {
		return fmt.Errorf("log of writes: magic %#x, version %d, sectors of %d bytes", magic, version, unit)
	}
	at := unit
	sector := make([]byte, unit)
	for i := range count {
		if _, err := log.ReadAt(sector, at); err != nil {
			return fmt.Errorf("log of writes, entry %d at %d: %w", i, at, err)
		}
		at += unit
		word := func(n int) uint64 { return binary.LittleEndian.Uint64(sector[8*n:]) }
		e := LogEntry{Offset: int64(word(0)) * unit, Length: int64(word(1)) * unit, Flags: word(2)}
		text := word(3)
		switch {
		case e.Flags&LogMark != 0 && text <= uint64(unit-logHeader):
			e.Mark = string(sector[logHeader : logHeader+text])
		case e.Flags&(LogMark|LogDiscard) == 0 && word(1) <= uint64(logDataMax/unit):
			e.Data = make([]byte, e.Length)
			if _, err := log.ReadAt(e.Data, at); err != nil && e.Length > 0 {
				return fmt.Errorf("log of writes, data of entry %d at %d: %w", i, at, err)
			}
			at += e.Length
		case e.Flags&LogDiscard == 0:
			return fmt.Errorf("log of writes, entry %d at %d: flags %#x, %d sectors, text of %d bytes", i, at, e.Flags, word(1), text)
		}
		if err := fn(e); err != nil {
			return fmt.Errorf("log of writes, entry %d: %w", i, err)
		}
	}
	return nil
}
