package trust

import (
	"bytes"
	"cmp"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/google/uuid"

	"openvstorage/internal/format"
)

// The file of a Cache, little-endian:
//
//	 0 64 common header: kind 17 (trust cache), owner = the cluster's UUID, number = the
//	      newest change of the records that was ever seen
//	64  2 length of the meta record, and the record
//	 .  4 hosts; each: length u16, its record. In order of UUID.
//	 .  4 certificates; each: length u16, its record. In order of serial.
//	 .  4 CRC-32C of all before, seeded with the incarnation
//
// It is replaced as a whole. Whatever this release does not know in it is refused.
// These bytes are on disk. They never change.
const (
	cacheVersion = 1
	cacheFileMax = 32 << 20
)

// errCacheDamaged: the file is no truth of its own, so its loss is borne.
var errCacheDamaged = errors.New("damaged")

func (s *snapshot) encode(cluster uuid.UUID) ([]byte, error) {
	incarnation, err := drawIncarnation()
	if err != nil {
		return nil, err
	}
	return s.encodeAs(cluster, incarnation), nil
}

func (s *snapshot) encodeAs(cluster uuid.UUID, incarnation uint64) []byte {
	b := format.AppendHeader(nil, format.Header{
		Kind: format.KindTrustCache, Version: cacheVersion, MinReader: cacheVersion,
		Owner: cluster, Number: s.high, Incarnation: incarnation,
	})
	b = putLarge(b, s.meta)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(s.hosts)))
	for _, id := range slices.SortedFunc(maps.Keys(s.hosts), func(x, y uuid.UUID) int { return bytes.Compare(x[:], y[:]) }) {
		h := s.hosts[id]
		b = putLarge(b, h.encode())
	}
	b = binary.LittleEndian.AppendUint32(b, uint32(len(s.certs)))
	for _, serial := range slices.SortedFunc(maps.Keys(s.certs), func(x, y Serial) int { return bytes.Compare(x[:], y[:]) }) {
		r := s.certs[serial]
		b = putLarge(b, r.encode())
	}
	return binary.LittleEndian.AppendUint32(b, format.SeededCRC(incarnation, b))
}

// decodeCache reads a cache's file. The error matches errCacheDamaged if the bytes are
// not what anybody wrote.
func decodeCache(b []byte, cluster uuid.UUID) (*snapshot, error) {
	h, err := format.DecodeRewritten(b, format.KindTrustCache, cacheVersion, 0)
	if errors.Is(err, format.ErrCorrupt) {
		err = errors.Join(errCacheDamaged, err)
	}
	if err != nil {
		return nil, fmt.Errorf("trust: cache of records: %w", err)
	}
	if h.Owner != cluster {
		return nil, fmt.Errorf("trust: cache of records: %w: it is of cluster %s, this is cluster %s", ErrOtherCluster, h.Owner, cluster)
	}
	end := len(b) - 4
	if end < format.HeaderSize || format.SeededCRC(h.Incarnation, b[:end]) != binary.LittleEndian.Uint32(b[end:]) {
		return nil, fmt.Errorf("trust: cache of records: %w: its checksum is wrong", errCacheDamaged)
	}
	s, err := decodeSnapshot(b[format.HeaderSize:end])
	if errors.Is(err, format.ErrCorrupt) {
		err = errors.Join(errCacheDamaged, err)
	}
	if err != nil {
		return nil, fmt.Errorf("trust: cache of records: %w", err)
	}
	s.high = h.Number
	return s, nil
}

func decodeSnapshot(b []byte) (*snapshot, error) {
	c := &cutter{b: b}
	s := &snapshot{hosts: map[uuid.UUID]Host{}, certs: map[Serial]Certificate{}}
	s.meta = bytes.Clone(c.large(recordMax, "meta record"))
	if c.err == nil {
		_, c.err = decodeMeta(s.meta)
	}
	n := c.u32("hosts")
	if n > HostsMax {
		c.corrupt("%d hosts, at most %d", n, HostsMax)
	}
	var last Host
	for i := uint32(0); i < n && c.err == nil; i++ {
		value := c.large(recordMax, "host")
		if c.err != nil {
			break
		}
		var h Host
		if h, c.err = decodeHost(value); i > 0 && bytes.Compare(last.ID[:], h.ID[:]) >= 0 {
			c.corrupt("host %s is out of order", h.ID)
		}
		s.hosts[h.ID], last = h, h
	}
	if n = c.u32("certificates"); n > CertificatesMax {
		c.corrupt("%d certificates, at most %d", n, CertificatesMax)
	}
	var serial Serial
	for i := uint32(0); i < n && c.err == nil; i++ {
		value := c.large(recordMax, "certificate")
		if c.err != nil {
			break
		}
		var r Certificate
		if r, c.err = decodeCertificate(value); i > 0 && bytes.Compare(serial[:], r.Serial[:]) >= 0 {
			c.corrupt("certificate %s is out of order", r.Serial)
		}
		s.certs[r.Serial], serial = r, r.Serial
	}
	return s, c.end()
}

// drawIncarnation returns a random number that is not zero.
func drawIncarnation() (uint64, error) {
	var b [8]byte
	if _, err := rand.Read(b[:]); err != nil {
		return 0, fmt.Errorf("trust: random number: %w", err)
	}
	return cmp.Or(binary.LittleEndian.Uint64(b[:]), 1), nil
}
