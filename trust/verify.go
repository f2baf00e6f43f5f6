package trust

import (
	"crypto/x509"
	"fmt"
	"time"

	"github.com/google/uuid"
)

// verify checks all that a certificate says by itself: that it names an identity of the
// cluster, that the authority signed it for the use, and that it is valid now. The
// identity is returned besides an error of time: expired is true if time is all that is
// wrong, and the certificate's is over.
func verify(leaf, authority *x509.Certificate, cluster uuid.UUID, use x509.ExtKeyUsage, now time.Time) (id Identity, expired bool, err error) {
	if id, err = IdentityOf(leaf); err != nil {
		return Identity{}, false, err
	}
	if id.Cluster != cluster {
		return Identity{}, false, fmt.Errorf("%w: it names %s of cluster %s, and this is cluster %s", ErrOtherCluster, id, id.Cluster, cluster)
	}
	roots := x509.NewCertPool()
	roots.AddCert(authority)
	at := now // a moment at which only the signature can be wrong
	if at.Before(leaf.NotBefore) {
		at = leaf.NotBefore
	}
	if at.After(leaf.NotAfter) {
		at = leaf.NotAfter
	}
	_, err = leaf.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: at, KeyUsages: []x509.ExtKeyUsage{use}})
	switch {
	case err != nil && leaf.CheckSignatureFrom(authority) != nil:
		return Identity{}, false, fmt.Errorf("%w: it names %s, and its issuer is %q: %v", ErrOtherCA, id, short(leaf.Issuer.String()), err)
	case err != nil:
		return Identity{}, false, fmt.Errorf("%w: that of %s is not for this use: %v", ErrCertificate, id, err)
	case now.Before(leaf.NotBefore):
		return id, false, fmt.Errorf("%w: that of %s is from %s on, and the clock here says %s: set the clocks right", ErrNotYet, id, stamp(leaf.NotBefore), stamp(now))
	case now.After(leaf.NotAfter):
		return id, true, fmt.Errorf("%w: that of %s at %s, and the clock here says %s: a host renews it by itself, a person needs another", ErrExpired, id, stamp(leaf.NotAfter), stamp(now))
	}
	return id, false, nil
}
