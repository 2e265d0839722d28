//! ESP, replay protection, pair keys, key rings and rotation.
