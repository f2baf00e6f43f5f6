package trust

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"openvstorage/internal/format"
)

// A join token is one line: TokenPrefix, then these bytes in base64 for URLs, without
// padding. Little-endian:
//
//	 0  1 version, 1
//	 1  4 roles
//	 5  8 expires, seconds since 1970
//	13 16 cluster
//	29 32 SHA-256 of the authority's certificate
//	61 32 secret
//	93  1 addresses, 1 to 8
//	94  . each: its length u8, then HOST:PORT
//	 .  4 CRC-32C of all before: it finds what was not copied whole
//
// These bytes are in others' hands. They never change.
const (
	TokenPrefix      = "ovs-join-"
	tokenVersion     = 1
	TokenAddresses   = 8 // addresses in a token
	tokenAddressMax  = 255
	tokenBytesMax    = 94 + TokenAddresses*(1+tokenAddressMax) + 4
	tokenLineMax     = len(TokenPrefix) + (tokenBytesMax*8+5)/6
	tokenHashContext = "openvstorage join token\x00"
)

// Secret is what proves that somebody has a token. It prints as nothing.
type Secret [32]byte

// String implements fmt.Stringer. It does not show the secret.
func (Secret) String() string { return "(secret)" }

// Format implements fmt.Formatter, so that no verb shows the secret.
func (Secret) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte("(secret)")) }

// hash is what is stored of a secret. The secret is 32 random bytes, which nobody finds
// from its hash by trying: so it needs no salt and no slow derivation.
func (s Secret) hash() [sha256.Size]byte {
	return sha256.Sum256(append([]byte(tokenHashContext), s[:]...))
}

// Token lets one host join, once. Whoever has it can join as a host with its roles until
// it is used or expires: it is handed over as a password is.
type Token struct {
	Cluster   uuid.UUID
	Authority Fingerprint // the joiner knows the cluster by it
	Addresses []string    // HOST:PORT of hosts that answer a join
	Roles     Roles
	Expires   time.Time // to the second; the cluster's clock decides
	Secret    Secret
}

// Line returns the token as the line that is given to whoever joins.
func (t *Token) Line() string {
	b := binary.LittleEndian.AppendUint32([]byte{tokenVersion}, uint32(t.Roles))
	b = putMoment(b, t.Expires)
	b = append(append(append(b, t.Cluster[:]...), t.Authority[:]...), t.Secret[:]...)
	b = putNames(b, t.Addresses)
	b = binary.LittleEndian.AppendUint32(b, format.CRC(b))
	return TokenPrefix + base64.RawURLEncoding.EncodeToString(b)
}

// ID is what the token is on record by: TokenRecord.Hash.
func (t *Token) ID() [sha256.Size]byte { return t.Secret.hash() }

// String names the token without its secret.
func (t *Token) String() string {
	return fmt.Sprintf("join token %x of cluster %s, roles %s, until %s", t.Secret.hash(), t.Cluster, t.Roles, stamp(t.Expires))
}

// ParseToken reads the line of a token; blanks around it do not matter. The error
// matches ErrToken, and format.ErrNewer too if a later release made the token. It never
// has the line in it.
func ParseToken(line string) (*Token, error) {
	line = strings.TrimSpace(line)
	text, ok := strings.CutPrefix(line, TokenPrefix)
	if !ok || len(line) > tokenLineMax {
		return nil, fmt.Errorf("trust: %w: it does not begin with %q, or has more than %d characters: copy the line that `ovs host token` printed", ErrToken, TokenPrefix, tokenLineMax)
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil || len(b) < 5 || binary.LittleEndian.Uint32(b[len(b)-4:]) != format.CRC(b[:len(b)-4]) {
		return nil, fmt.Errorf("trust: %w: the line is damaged or not whole: copy it again", ErrToken)
	}
	t, err := decodeTokenLine(b[:len(b)-4])
	if err != nil {
		return nil, fmt.Errorf("trust: %w: %w", ErrToken, err)
	}
	return t, nil
}

func decodeTokenLine(b []byte) (*Token, error) {
	c, t := &cutter{b: b}, new(Token)
	if v := c.u8("version"); v != tokenVersion {
		c.newer("version %d, this release reads %d: join with the release of the cluster", v, tokenVersion)
	}
	if t.Roles = Roles(c.u32("roles")); c.err == nil && t.Roles.Check() != nil {
		c.newer("roles %#x", uint32(t.Roles))
	}
	t.Expires, t.Cluster = c.moment("expiry"), c.uid("cluster")
	c.fill(t.Authority[:], "fingerprint")
	c.fill(t.Secret[:], "secret")
	t.Addresses = c.names(TokenAddresses, tokenAddressMax, "addresses")
	if err := c.end(); err != nil {
		return nil, err
	}
	return t, t.check()
}

func (t *Token) check() error {
	if err := t.Roles.Check(); err != nil {
		return err
	}
	if t.Cluster == uuid.Nil || t.Expires.IsZero() {
		return invalid("a token without a cluster or an expiry")
	}
	return checkAddresses(t.Addresses)
}

func checkAddresses(addresses []string) error {
	if len(addresses) == 0 || len(addresses) > TokenAddresses {
		return invalid("%d addresses in a token, 1 to %d", len(addresses), TokenAddresses)
	}
	for _, a := range addresses {
		host, port, err := net.SplitHostPort(a)
		n, errPort := strconv.ParseUint(port, 10, 16)
		if err != nil || errPort != nil || n == 0 || len(a) > tokenAddressMax {
			return invalid("address %.80q in a token: it is HOST:PORT", a)
		}
		if _, _, err := hostNames([]string{host}); err != nil {
			return invalid("address %.80q in a token: %v", a, err)
		}
	}
	return nil
}

func newSecret() (s Secret, err error) {
	if _, err := rand.Read(s[:]); err != nil {
		return s, fmt.Errorf("trust: secret of a token: %w", err)
	}
	return s, nil
}
