-- What wixl does not know, set in the tables of the package: one statement for each line, for msibuild.
-- PATH: behind what is there (=-* sets it at the installation, removes it at the removal, for the machine).
CREATE TABLE `Environment` (`Environment` CHAR(72) NOT NULL, `Name` CHAR(255) NOT NULL LOCALIZABLE, `Value` CHAR(255) LOCALIZABLE, `Component_` CHAR(72) NOT NULL PRIMARY KEY `Environment`)
INSERT INTO `Environment` (`Environment`, `Name`, `Value`, `Component_`) VALUES ('Path', '=-*PATH', '[~];[INSTALLDIR]', 'Program')
INSERT INTO `InstallExecuteSequence` (`Action`, `Condition`, `Sequence`) VALUES ('RemoveEnvironmentStrings', '', 3300)
INSERT INTO `InstallExecuteSequence` (`Action`, `Condition`, `Sequence`) VALUES ('WriteEnvironmentStrings', '', 5200)
-- The older version goes before the new one comes, within the same transaction: what fails brings it back.
UPDATE `InstallExecuteSequence` SET `Sequence` = 1501 WHERE `Action` = 'RemoveExistingProducts'
-- The same version in the other language is an upgrade as well (256 and 512: both ends of the versions are meant).
DELETE FROM `Upgrade` WHERE `ActionProperty` = 'WIX_UPGRADE_DETECTED'
INSERT INTO `Upgrade` (`UpgradeCode`, `VersionMin`, `VersionMax`, `Language`, `Attributes`, `Remove`, `ActionProperty`) VALUES ('{7E1B4B4B-5D2C-4C58-9C5E-0A4F0F6F1D11}', '', '@Version@', '', 513, '', 'WIX_UPGRADE_DETECTED')
-- An older version is refused, unless somebody wants to go back: then the newer one goes before it comes, as in an upgrade.
DELETE FROM `Upgrade` WHERE `ActionProperty` = 'WIX_DOWNGRADE_DETECTED'
INSERT INTO `Upgrade` (`UpgradeCode`, `VersionMin`, `VersionMax`, `Language`, `Attributes`, `Remove`, `ActionProperty`) VALUES ('{7E1B4B4B-5D2C-4C58-9C5E-0A4F0F6F1D11}', '@Version@', '', '', 0, '', 'WIX_DOWNGRADE_DETECTED')
DELETE FROM `LaunchCondition` WHERE `Condition` = 'NOT WIX_DOWNGRADE_DETECTED'
INSERT INTO `LaunchCondition` (`Condition`, `Description`) VALUES ('NOT WIX_DOWNGRADE_DETECTED OR GOBACK=1', '@Downgrade@')
-- Properties that a command line may set although somebody else's rights are used.
UPDATE `Property` SET `Value` = 'DATADIR;FOUND_DATADIR;FOUND_INSTALLDIR;FOUND_WINDOWS10;GOBACK;INSTALLDIR;PROXY;RELAY_CODE;REMOVEDATA;STARTSERVICE;WIX_DOWNGRADE_DETECTED;WIX_UPGRADE_DETECTED' WHERE `Property` = 'SecureCustomProperties'
-- Setting a property: 51. A program of the package: 18, deferred 1024, as the system 2048, its command line in no log 8192.
UPDATE `CustomAction` SET `Type` = 51 WHERE `Action` = 'KeepDataDir'
UPDATE `CustomAction` SET `Type` = 51 WHERE `Action` = 'KeepInstallDir'
UPDATE `CustomAction` SET `Type` = 51 WHERE `Action` = 'ForgetCode'
UPDATE `CustomAction` SET `Type` = 51 WHERE `Action` = 'ForgetProxy'
UPDATE `CustomAction` SET `Type` = 51 WHERE `Action` = 'ForgetStart'
UPDATE `CustomAction` SET `Type` = 11282 WHERE `Action` = 'SetUp'
-- The same when the installation is taken back: 256, and nobody waits for how it ends: 64.
UPDATE `CustomAction` SET `Type` = 3410 WHERE `Action` = 'UndoSetUp'
UPDATE `CustomAction` SET `Type` = 3410 WHERE `Action` = 'UndoRemoval'
-- Names as Windows had them once, and the names that people see.
UPDATE `File` SET `FileName` = 'TOWPATH.EXE|towpath-agent.exe' WHERE `File` = 'AgentExe'
UPDATE `File` SET `FileName` = 'THIRDPTY.TXT|THIRD-PARTY-LICENSES.txt' WHERE `File` = 'ThirdParty'
UPDATE `File` SET `FileName` = 'SBOM.JSN|sbom.cdx.json' WHERE `File` = 'Bill'
UPDATE `File` SET `FileName` = 'EXAMPLE.TML|agent.example.toml' WHERE `File` = 'Example'
UPDATE `Shortcut` SET `Name` = 'TOWPATH|@Shortcut@' WHERE `Shortcut` = 'Status'
-- What is said where a program of the package fails, which is the set-up.
INSERT INTO `Error` (`Error`, `Message`) VALUES (1722, '@Failed@')
