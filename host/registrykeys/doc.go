// Package registrykeys keeps the registry of vDisks on an Arakoon group. Keys
// implements, over a node, the few methods that package volumedriver/registry asks of a
// replicated store. The two packages meet here, and do not know each other.
package registrykeys
