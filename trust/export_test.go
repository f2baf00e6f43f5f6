package trust

import (
	"context"
	"crypto/x509"
	"encoding/binary"
	"testing"

	"github.com/google/uuid"

	"openvstorage/trust/internal/cost"
)

// FoundAndOpen is Found and Registrar.Open without what a passphrase costs, for tests that
// are about something else. The key is sealed with as few rounds as are read.
func FoundAndOpen(ctx context.Context, r *Registrar, cluster uuid.UUID, a *Authority, passphrase []byte) error {
	der, err := x509.MarshalPKCS8PrivateKey(a.key)
	if err != nil {
		return err
	}
	sealed, err := seal(der, a.Fingerprint(), passphrase, cost.Min, [16]byte{1}, [12]byte{1})
	if err != nil {
		return err
	}
	r.key.Store(a)
	return found(ctx, r.store, cluster, a, sealed)
}

// CheapSeals makes Seal take as few rounds as are read, until the test has ended. Such
// a test runs alone.
func CheapSeals(t *testing.T) {
	cost.Rounds = cost.Min
	t.Cleanup(func() { cost.Rounds = SealRounds })
}

// RoundsOf returns how many rounds a sealed key takes.
func RoundsOf(sealed []byte) uint32 { return binary.LittleEndian.Uint32(sealed[12:]) }

// RoundsNow and RoundsLeast are how many rounds Seal writes, and how many are read at least.
func RoundsNow() uint32   { return cost.Rounds }
func RoundsLeast() uint32 { return cost.Min }

// OpenCheap seals a key with fewer rounds than are read, and opens it.
func OpenCheap(a *Authority, passphrase []byte) error {
	der, err := x509.MarshalPKCS8PrivateKey(a.key)
	if err != nil {
		return err
	}
	sealed, err := seal(der, a.Fingerprint(), passphrase, cost.Min-1, [16]byte{1}, [12]byte{1})
	if err != nil {
		return err
	}
	_, err = OpenAuthority(a.cert, sealed, passphrase)
	return err
}
