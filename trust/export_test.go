package trust

import (
	"context"
	"crypto/x509"
	"encoding/binary"
	"testing"

	"github.com/google/uuid"
)

// FoundAndOpen is Found and Registrar.Open without what a passphrase costs, for tests that
// are about something else. The key is sealed with as few rounds as are read.
func FoundAndOpen(ctx context.Context, r *Registrar, cluster uuid.UUID, a *Authority, passphrase []byte) error {
	der, err := x509.MarshalPKCS8PrivateKey(a.key)
	if err != nil {
		return err
	}
	sealed, err := seal(der, a.Fingerprint(), passphrase, roundsMin, [16]byte{1}, [12]byte{1})
	if err != nil {
		return err
	}
	r.key.Store(a)
	return found(ctx, r.store, cluster, a, sealed)
}

// CheapSeals makes Seal take as few rounds as are read, until the test has ended. Such
// a test runs alone.
func CheapSeals(t *testing.T) {
	sealRounds = roundsMin
	t.Cleanup(func() { sealRounds = SealRounds })
}

// RoundsOf returns how many rounds a sealed key takes.
func RoundsOf(sealed []byte) uint32 { return binary.LittleEndian.Uint32(sealed[12:]) }
