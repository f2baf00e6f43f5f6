package trust

import (
	"context"
	"crypto/x509"

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
