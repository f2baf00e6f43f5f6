// Package trustkeys keeps the records of package trust, and those of package
// host/roster, on an Arakoon group. Keys implements trust.Store over a node. The packages
// meet here, and do not know each other.
package trustkeys
