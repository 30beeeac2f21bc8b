//! BitLocker volumes of Windows.
